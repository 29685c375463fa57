//! Every check there is. A code is never given to another check, also not after its own is gone.

use super::look::{self, Finding};
use super::observed::Observed;

/// One thing that should hold.
pub(crate) struct Check {
    pub(crate) code: &'static str,
    pub(crate) name: &'static str,
    pub(super) category: &'static str,
    /// What should hold.
    pub(crate) sentence: &'static str,
    /// What to do if it does not; `PEER` stands for what it is about.
    pub(crate) remedy: &'static str,
    /// Checks without which this one says nothing, for the same subject.
    pub(super) needs: &'static [&'static str],
    /// One finding for each subject; none where there is nothing to look at.
    pub(super) look: fn(&Observed) -> Vec<Finding>,
}

macro_rules! catalogue {
    ($(
        $category:literal {
            $( $code:literal $name:ident [$($needs:literal),*] $sentence:literal, $remedy:literal; )+
        }
    )+) => {
        /// In the order in which they are made: what others need comes first.
        pub(crate) const CATALOGUE: &[Check] = &[ $($(
            Check {
                code: $code,
                name: stringify!($name),
                category: $category,
                sentence: $sentence,
                remedy: $remedy,
                needs: &[$($needs),*],
                look: look::$name,
            },
        )+)+ ];
    };
}

catalogue! {
    "control plane" {
        "CRN201" control_plane_answers []
            "the control plane answers",
            "start the node, or name another one with --config or --control";
        "CRN202" gateway_follows ["CRN201"]
            "a gateway follows the control plane",
            "start a gateway, and look into its log if it runs: it says why it cannot follow";
        "CRN203" tables_taken ["CRN201"]
            "the gateway can use the tables it was told",
            "look into the log of that gateway; it keeps the tables it had. corinth diff shows which";
        "CRN204" consumer_current ["CRN201", "CRN203"]
            "the gateway has the newest tables",
            "try again in a few seconds; if it stays behind, look into the log of that gateway";
        "CRN205" declarations_readable ["CRN201"]
            "the file with links and exports can be used",
            "mend the file; the log of the control plane says where";
        "CRN206" state_kept ["CRN201"]
            "the kept state could be read",
            "nothing to do: peers take everything anew; look at the disk if it happens again";
        "CRN207" no_other_condition ["CRN201"]
            "no condition stands that another check does not look at",
            "corinth status shows it with what to do";
        "CRN112" versions_close ["CRN201"]
            "gateways and this command run versions next to each other",
            "upgrade the older side";
    }
    "links" {
        "CRN301" address_known ["CRN201"]
            "an address of the peer's gateways is known, or the peer dials",
            "declare an address: corinth link show there, corinth link add here";
        "CRN302" address_resolves ["CRN301"]
            "the addresses of the peer's gateways resolve",
            "mend the name in DNS, or declare another address";
        "CRN303" address_answers ["CRN301", "CRN302"]
            "the peer's gateways answer TCP from here",
            "is port 15443 open between the networks, and does a gateway of PEER run?";
        "CRN308" link_active ["CRN201"]
            "the link is in use",
            "corinth link resume PEER, once it shall be used again";
        "CRN309" link_mutual ["CRN201"]
            "the peer has not ended the link",
            "corinth link delete PEER, or link again";
        "CRN304" tunnel_up ["CRN301", "CRN302", "CRN303", "CRN309"]
            "the tunnel is up",
            "look into the log of the gateway: it says why it cannot link with PEER, and dials on";
        "CRN305" protocol_common ["CRN304"]
            "both speak a common version of the peering protocol",
            "upgrade the older side; versions next to each other understand each other";
        "CRN306" peer_told ["CRN304", "CRN305"]
            "the peer's control plane is heard",
            "look into the log of the control plane of PEER; what it told before stays in use";
        "CRN307" state_in_sync ["CRN305"]
            "the peer's state is taken as it is told",
            "if PEER was restored from a backup, wait for its new state; at once with corinth link confirm PEER";
        "CRN310" rtt_low ["CRN304"]
            "the round trip takes less than 300 ms",
            "look at the way between the clusters; requests that wait for each other suffer most";
        "CRN311" no_flaps ["CRN201"]
            "the peer's control plane does not come and go",
            "look into the log of the control plane of PEER";
        "CRN313" address_class ["CRN201"]
            "the peer announces addresses of the class it was linked with",
            "link again with an address of that class if PEER has really moved";
    }
    "services" {
        "CRN404" export_declared ["CRN201"]
            "every exported service is declared here",
            "declare it under services, or name its port and endpoints with corinth export";
        "CRN402" export_has_endpoints ["CRN201"]
            "the exported service has endpoints",
            "start the service, or correct its endpoints";
        "CRN408" export_has_callers ["CRN201"]
            "a linked cluster may call the exported service",
            "link with a cluster it is exported to, or export it to one that is linked";
        "CRN401" exports_agree ["CRN201"]
            "clusters agree on the properties of services they share",
            "make the exports alike; until then the oldest one decides";
        "CRN403" import_reachable ["CRN201"]
            "the service of peers can be reached at one of them",
            "corinth path says where the way to it is blocked";
        "CRN407" import_fresh ["CRN201"]
            "the service is in the newest state of its cluster",
            "it goes by itself; at once with corinth link confirm and the name of the cluster";
        "CRN405" offers_accepted ["CRN201"]
            "every service that peers offer is accepted",
            "corinth link accept, if it is wanted";
        "CRN409" entries_valid ["CRN201"]
            "peers offer nothing that cannot be taken",
            "see what the condition says: the quota, an invalid entry, or a namespace of Kubernetes";
        "CRN406" import_port_given ["CRN201"]
            "every imported service port has an import port",
            "widen listen.importPorts, or accept fewer services";
        "CRN410" import_port_open ["CRN201"]
            "gateways can listen on every import port",
            "free the port, or give the service another one; it is tried again with the next change";
    }
    "identity" {
        "CRN601" leaf_lives ["CRN201"]
            "the certificate is renewed in time",
            "look into the log of the control plane: a certificate is renewed when half of its life has passed";
        "CRN602" root_lives ["CRN201"]
            "the own root holds for 30 days or more",
            "rotate the root while peers can still learn the new one";
        "CRN603" peer_root_lives ["CRN201"]
            "a root of the peer is known that holds for 30 days or more",
            "let PEER rotate its root; link again if it has expired";
        "CRN604" bundles_taken ["CRN201"]
            "the roots that peers sent are in use",
            "see what the condition says; link again if the peer has really made new roots";
    }
}
