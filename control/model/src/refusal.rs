//! The typed "no".

use crate::reason::closed_set;

closed_set! {
    /// A decision not to carry a connection. Nothing went wrong: asked again, the answer is the same until something
    /// changes. A refusal is never confused with a [`Failure`](crate::Failure).
    Refusal {
        UnknownRoute = "CRN001", "unknown_route",
            "no route has this name or import port",
            "check that the service is imported here (corinth routes) and that the name is spelled <port>.<service>.<namespace>.svc.clusterset.local";
        Forbidden = "CRN002", "forbidden",
            "the destination cluster does not export this service port to the caller's cluster",
            "export the service port to this cluster, in the destination cluster; unknown and forbidden names are answered alike";
        NoEndpoint = "CRN003", "no_endpoint",
            "the service has no endpoint that could take the connection",
            "check that the service's endpoints are ready in the cluster that exports it";
        OverLimit = "CRN004", "over_limit",
            "a configured limit on streams is reached",
            "raise max_streams of the peer or of the export, or spread the callers";
        Overloaded = "CRN005", "overloaded",
            "the gateway is short of memory, descriptors or time and takes nothing new",
            "give the gateway more resources or run more of them; callers are sent elsewhere meanwhile";
        Draining = "CRN006", "draining",
            "the gateway is stopping and takes nothing new",
            "nothing to do: another gateway takes the connection; if there is none, run at least two";
        AmbiguousName = "CRN007", "ambiguous_name",
            "the name has no port, and the service does not have exactly one TCP port that speaks TLS",
            "put the port in front: <port>.<service>.<namespace>.svc.clusterset.local";
        InvalidName = "CRN008", "invalid_name",
            "the name is malformed",
            "use a DNS name of letters, digits and '-': <port>.<service>.<namespace>.svc.clusterset.local";
        TooManyHops = "CRN009", "too_many_hops",
            "the stream has already passed two gateways",
            "a stream is delivered by the cluster it was sent to; look for a route that points back to a cluster that imports the service";
        SourceNotAllowed = "CRN010", "source_not_allowed",
            "the client's address or identity is not among those this route is open to",
            "add the client to the route's allowed sources or callers, or let it come through its own cluster's gateway";
        Unlinked = "CRN011", "unlinked",
            "the peer's cluster is not linked with this one",
            "link the two clusters, on both sides";
        FlowLimit = "CRN012", "flow_limit",
            "a configured limit on UDP flows is reached",
            "raise limits.flows, flowsPerPeer or flowsPerClient, or find out who opens so many; corinth_datagrams_dropped_total tells how many";
    }
}
