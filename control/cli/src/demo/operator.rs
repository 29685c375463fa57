//! What operators do in the demo, as the commands do it: over the socket of the control plane of one node.

use corinth_api::wire::admin::{
    AcceptRequest, CarryLinkRequest, CreateTokenRequest, ExportRequest, JoinRequest, ServicePort,
    UnexportRequest, status_request::Kind,
};
use corinth_gateway::settings::Control as Sockets;
use tonic::{Response, Status};

use super::cluster::Cluster;
use crate::{
    control::{Client, Control, Export, Import, Place},
    trouble::Trouble,
};

/// The port under which every service of the demo is offered.
const PORT: u32 = 80;
/// A token is used at once.
const TOKEN_SECONDS: u32 = 60;

/// Links `joiner` with `inviter` by a token for one use.
pub(super) async fn link(inviter: &Cluster, joiner: &Cluster) -> Result<(), String> {
    let token = change(inviter, |mut client| async move {
        let request = CreateTokenRequest {
            ttl_seconds: TOKEN_SECONDS,
            uses: 1,
        };
        client.create_token(request).await
    });
    let token = token.await?.token;
    let join = change(joiner, |mut client| async move {
        let request = JoinRequest {
            token,
            one_way: false,
        };
        client.join(request).await
    });
    let joined = join.await?.cluster;
    if joined == inviter.name {
        return Ok(());
    }
    Err(format!(
        "expected a link with {}, got one with {joined}",
        inviter.name
    ))
}

/// Offers a service of `cluster`, at its instances, to a peer.
pub(super) async fn export(cluster: &Cluster, service: &str, to: &str) -> Result<(), String> {
    let (name, namespace) = parts(service);
    let request = ExportRequest {
        namespace,
        service: name,
        to: vec![to.to_owned()],
        ports: vec![ServicePort {
            port: PORT,
            endpoints: cluster.endpoints(service),
            tls: false,
            udp: false,
        }],
    };
    let export = change(
        cluster,
        |mut client| async move { client.export(request).await },
    );
    export.await.map(drop)
}

/// Offers a service to nobody any more.
pub(super) async fn unexport(cluster: &Cluster, service: &str) -> Result<(), String> {
    let (service, namespace) = parts(service);
    let request = UnexportRequest {
        namespace,
        service,
        from: Vec::new(),
    };
    let unexport = change(cluster, |mut client| async move {
        client.unexport(request).await
    });
    unexport.await.map(drop)
}

/// Accepts these services of `peer`, and no others.
pub(super) async fn accept(cluster: &Cluster, peer: &str, services: &str) -> Result<(), String> {
    let request = AcceptRequest {
        cluster: peer.to_owned(),
        services: vec![services.to_owned()],
    };
    let accept = change(
        cluster,
        |mut client| async move { client.accept(request).await },
    );
    accept.await.map(drop)
}

/// Says what is to carry the streams that `cluster` opens to `peer`.
pub(super) async fn carry(cluster: &Cluster, peer: &str, transport: &str) -> Result<(), String> {
    let request = CarryLinkRequest {
        cluster: peer.to_owned(),
        transport: transport.to_owned(),
        congestion: String::new(),
    };
    let carry = change(cluster, |mut client| async move {
        client.carry_link(request).await
    });
    carry.await.map(drop)
}

/// What `cluster` offers, and what is offered to it and accepted.
pub(super) async fn offers(cluster: &Cluster) -> Result<(Vec<Export>, Vec<Import>), String> {
    let control = control(cluster).await?;
    let exports = control.ask(Kind::Exports).await.map_err(words)?;
    let imports = control.ask(Kind::Imports).await.map_err(words)?;
    Ok((exports, imports))
}

/// Whether the control plane of `cluster` answers.
pub(super) async fn is_there(cluster: &Cluster) -> bool {
    control(cluster).await.is_ok()
}

async fn change<T, F: Future<Output = Result<Response<T>, Status>>>(
    cluster: &Cluster,
    change: impl FnOnce(Client) -> F,
) -> Result<T, String> {
    let control = control(cluster).await?;
    let failed = format!("{} did not do what it was told", cluster.name);
    control.change(&failed, change).await.map_err(words)
}

async fn control(cluster: &Cluster) -> Result<Control, String> {
    let socket = Sockets::in_state_dir(&cluster.config.with_extension("")).socket;
    let connected = Control::connect(Place::socket(&socket), None).await;
    connected.map_err(words)
}

fn words(trouble: Trouble) -> String {
    format!("{}: {}", trouble.what, trouble.why)
}

/// `payments.shop` as the wire spells it.
fn parts(service: &str) -> (String, String) {
    let (name, namespace) = service.split_once('.').unwrap_or((service, ""));
    (name.to_owned(), namespace.to_owned())
}
