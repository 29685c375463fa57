//! What a control plane has to tell an operator about its links, imports and exports.

use crate::reason::closed_set;

closed_set! {
    /// Something an operator should know that is not the end of a connection. It stands until its cause has gone.
    /// Codes: `CRN070`–`CRN099`, then `CRN701`–`CRN799`.
    Condition {
        NotAccepted = "CRN070", "not_accepted",
            "the peer offers a service that its link does not accept here",
            "accept it if it is wanted: corinth link accept PEER SERVICE";
        OverQuota = "CRN071", "over_quota",
            "the peer offers more than its quota; the excess is not taken",
            "find out why the peer offers so much, or raise the link's quota";
        EntryInvalid = "CRN072", "entry_invalid",
            "an entry of the peer breaks a rule and is not taken",
            "upgrade the older side; report it if both run the same version";
        ReservedNamespace = "CRN073", "reserved_namespace",
            "the peer offers a service in a namespace that belongs to Kubernetes",
            "export it from another namespace, in the peer";
        AddressRefused = "CRN074", "address_refused",
            "the peer announces a gateway address of another class than the one it was linked with",
            "link again with an address of that class if the peer has really moved";
        VersionWentBack = "CRN075", "version_went_back",
            "the peer tells an older state than it has told before",
            "it runs from an old copy of its state: restore it with corinth restore, which begins a new instance";
        Incompatible = "CRN076", "incompatible",
            "the peer speaks no version of the peering protocol that is spoken here",
            "upgrade the older side; versions next to each other understand each other";
        Flapping = "CRN077", "flapping",
            "the peer's control plane comes and goes",
            "look into the log of the peer's control plane; what it told before stays in use";
        PeerUnlinked = "CRN078", "peer_unlinked",
            "the peer has ended the link",
            "delete the link here too, or link again";
        Stale = "CRN079", "stale",
            "the peer's new state leaves out services that it offered before",
            "they go by themselves; at once with corinth link confirm PEER";
        TokenRefused = "CRN080", "token_refused",
            "the token is unknown, used, expired or damaged",
            "ask for a new one: corinth link token create";
        InviterUnproven = "CRN081", "inviter_unproven",
            "whoever answers at the token's address could not prove to be the inviter",
            "check the address, and that nothing on the way ends TLS";
        AlreadyLinked = "CRN082", "already_linked",
            "a cluster of this name or trust domain is linked already",
            "corinth link list; delete that link first, or give one of the clusters another name";
        OwnCluster = "CRN083", "own_cluster",
            "a cluster cannot be linked with itself",
            "use the token on another cluster";
        TooManyAttempts = "CRN084", "too_many_attempts",
            "too many attempts to link at once",
            "try again in a few seconds";
        LinkUnreachable = "CRN085", "link_unreachable",
            "no address of the other cluster takes a link",
            "is port 15443 open between the networks, and is the token still open?";
        BundleOlder = "CRN086", "bundle_older",
            "the peer sent older roots than those held; they are not used",
            "nothing to do if it was restored from a backup and sends newer ones soon; else declare the link as corinth link show prints it there";
        BundleConflict = "CRN087", "bundle_conflict",
            "the peer sent other roots under a sequence that was used before; they are not used",
            "link again if the peer has really made new roots";
        BundleUnrelated = "CRN088", "bundle_unrelated",
            "the peer sent roots of which none was known before; they are not used",
            "link again if the peer has really made new roots";
        RootInUse = "CRN089", "root_in_use",
            "the root is still in use",
            "wait until the leaves under it have been renewed and every peer holds the new root";
        ExportConflict = "CRN090", "export_conflict",
            "clusters disagree on a property of an exported service; the oldest export decides",
            "make the exports alike";
        NoImportPort = "CRN091", "no_import_port",
            "no import port is left for a service port",
            "widen listen.importPorts, or accept fewer services";
        ServiceUnknown = "CRN092", "service_unknown",
            "an export names a service that is not declared here",
            "declare it under services, or name its port and endpoints with the export";
        LinkPaused = "CRN093", "link_paused",
            "the link is paused",
            "corinth link resume PEER";
        PeerSilent = "CRN094", "peer_silent",
            "the peer's control plane is not heard; what it told before stays in use",
            "corinth check; look into the log of the peer's control plane";
        LinkUnknown = "CRN095", "link_unknown",
            "there is no link with this cluster",
            "corinth link list";
        Unreadable = "CRN096", "unreadable",
            "the file with links and exports cannot be used; what it said before stays in use",
            "mend the file; the log says where";
        StateLost = "CRN097", "state_lost",
            "the kept state could not be read; a new instance was begun",
            "nothing to do: peers take everything anew";
        ConsumerBehind = "CRN098", "consumer_behind",
            "a gateway has not taken the newest tables",
            "corinth diff; look into the log of that gateway";
        ImportPortClosed = "CRN099", "import_port_closed",
            "a gateway cannot listen on the import port of a service; its other ports are served",
            "free the port, or give the service another one; it is tried again with the next change";
        SigningRequestInvalid = "CRN701", "signing_request_invalid",
            "a request for a certificate is malformed, or its signature does not prove the key in it",
            "upgrade the older side; report it if both run the same version";
        SigningKeyUnfit = "CRN702", "signing_key_unfit",
            "a certificate is asked for a key that is not on the curve P-256",
            "upgrade the gateway; certificates are issued for P-256 keys only";
        IdentityForeign = "CRN703", "identity_foreign",
            "a certificate is asked for an identity of another trust domain",
            "give the gateway the trust domain of its control plane, or the socket of its own one";
        IdentityNotGateway = "CRN704", "identity_not_gateway",
            "a certificate is asked for an identity that is not a gateway's",
            "find out who asks: only gateways get certificates from a control plane";
        NotIssuing = "CRN705", "not_issuing",
            "the root that issues has expired or cannot be used, so that no certificate is issued",
            "corinth cert list; change the root, or restore the state directory";
        CertificateExpiring = "CRN706", "certificate_expiring",
            "less than a quarter of the life of a gateway's certificate is left",
            "does that gateway still run, and reach its control plane? Its log says why it does not renew";
        IdentityDenied = "CRN707", "identity_denied",
            "a certificate is asked for an identity that the operator denied",
            "find out who asks; corinth link believe lifts the denial";
    }
}
