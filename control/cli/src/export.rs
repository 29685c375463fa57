//! `corinth export`, `unexport`, `exports` and `imports`: what a cluster offers, and what is offered to it.

use corinth_api::wire::admin::{ExportRequest, ServicePort, UnexportRequest, status_request::Kind};
use corinth_model::Protocol;
use jiff::Timestamp;

use crate::{
    args::{ExportArgs, ShowArgs, UnexportArgs},
    control::{Client, Export, Import, act, place},
    exit::Exit,
    output::{Cell, Item, Listing},
    terminal::{Mark, Style, Terminal, plain},
    trouble::Trouble,
};

impl Item for Export {
    const KIND: &'static str = "Exports";
    const HEADERS: &'static [&'static str] =
        &["SERVICE", "PORTS", "TO", "OPEN TO", "ENDPOINTS", "SINCE"];

    fn rows(&self, _: Style) -> Vec<Vec<Cell>> {
        let since = i64::try_from(self.since_ms).ok().filter(|since| *since > 0);
        let since = since.and_then(|since| Timestamp::from_millisecond(since).ok());
        vec![vec![
            Cell::plain(&self.service),
            names(&self.ports),
            names(&self.to),
            names(&self.open_to),
            Cell::plain(self.endpoints),
            Cell::optional(since),
        ]]
    }

    fn name(&self) -> String {
        format!("export/{}", self.service)
    }
}

impl Item for Import {
    const KIND: &'static str = "Imports";
    const HEADERS: &'static [&'static str] =
        &["SERVICE", "FROM", "READY", "STATE", "PORT", "IMPORT PORT"];

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        let state = match (self.stale, self.ready) {
            (true, _) => Cell::marked(style, Mark::Warning, "stale"),
            (false, 0) => Cell::marked(style, Mark::Bad, "not ready"),
            (false, _) => Cell::marked(style, Mark::Good, "offered"),
        };
        let mut row = vec![
            Cell::plain(&self.service),
            Cell::plain(&self.from),
            Cell::plain(self.ready),
            state,
        ];
        let mut rows = Vec::new();
        for port in &self.ports {
            let number = match port.protocol {
                Protocol::Tcp => Cell::plain(port.port),
                Protocol::Udp => Cell::plain(format!("{}/udp", port.port)),
            };
            row.extend([number, Cell::optional(port.import_port)]);
            rows.push(std::mem::replace(&mut row, vec![Cell::plain(""); 4]));
        }
        if rows.is_empty() {
            rows.push(row);
        }
        rows
    }

    fn name(&self) -> String {
        format!("import/{}/{}", self.from, self.service)
    }
}

pub(crate) fn export(terminal: &Terminal, args: &ExportArgs) -> Result<Exit, Trouble> {
    let ports = args.port.map(|port| ServicePort {
        port: port.get().into(),
        endpoints: args.endpoint.iter().map(ToString::to_string).collect(),
        tls: args.tls,
        udp: args.udp,
    });
    let request = ExportRequest {
        namespace: args.service.namespace.to_string(),
        service: args.service.service.to_string(),
        to: args.to.clone(),
        ports: ports.into_iter().collect(),
    };
    let failed = format!("{} is not exported in this way", args.service);
    let answer = act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move {
            let change = |mut client: Client| async move { client.export(request).await };
            control.change(&failed, change).await
        },
    )?;
    terminal.print(&format!(
        "{} is exported; {}\n",
        args.service,
        open_to(&answer.to)
    ))?;
    Ok(Exit::Done)
}

pub(crate) fn unexport(terminal: &Terminal, args: &UnexportArgs) -> Result<Exit, Trouble> {
    let request = UnexportRequest {
        namespace: args.service.namespace.to_string(),
        service: args.service.service.to_string(),
        from: args.from.iter().map(ToString::to_string).collect(),
    };
    let failed = format!("{} is exported as before", args.service);
    let answer = act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move {
            let change = |mut client: Client| async move { client.unexport(request).await };
            control.change(&failed, change).await
        },
    )?;
    let left = if answer.to.is_empty() {
        "is no longer exported to anybody".to_owned()
    } else {
        format!("is exported to fewer; {}", open_to(&answer.to))
    };
    terminal.print(&format!("{} {left}\n", args.service))?;
    Ok(Exit::Done)
}

pub(crate) fn exports(terminal: &Terminal, args: &ShowArgs) -> Result<Exit, Trouble> {
    let exports: Vec<Export> = act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move { control.ask(Kind::Exports).await },
    )?;
    if exports.is_empty() {
        terminal.note("no exports: this cluster offers nothing; corinth export SERVICE.NAMESPACE changes that\n");
    }
    Listing::whole(exports).print(terminal, args.output)?;
    Ok(Exit::Done)
}

pub(crate) fn imports(terminal: &Terminal, args: &ShowArgs) -> Result<Exit, Trouble> {
    let imports: Vec<Import> = act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move { control.ask(Kind::Imports).await },
    )?;
    if imports.is_empty() {
        terminal.note(
            "no imports: no peer offers anything that is accepted here; corinth link list shows what is accepted\n",
        );
    }
    Listing::whole(imports).print(terminal, args.output)?;
    Ok(Exit::Done)
}

fn open_to(clusters: &[String]) -> String {
    if clusters.is_empty() {
        return "no linked cluster may call it yet".to_owned();
    }
    format!(
        "these clusters may call it now: {}",
        plain(&clusters.join(", "))
    )
}

fn names(names: &[String]) -> Cell {
    Cell::optional((!names.is_empty()).then(|| names.join(",")))
}
