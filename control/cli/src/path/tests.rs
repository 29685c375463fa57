use super::walk::{Snapshot, StepState, Walk, walk};
use crate::control::testing::{exports, healthy, imports, json, routes};

fn near() -> Snapshot {
    Snapshot {
        status: json(healthy()),
        routes: json(routes()),
        imports: json(imports()),
        exports: Vec::new(),
    }
}

fn far() -> Snapshot {
    let mut status = healthy();
    status["cluster"] = "west".into();
    Snapshot {
        status: json(status),
        routes: Vec::new(),
        imports: Vec::new(),
        exports: json(exports()),
    }
}

fn blocked(walk: &Walk) -> Vec<&'static str> {
    let steps = walk.steps.iter();
    steps
        .filter(|step| step.state == StepState::Blocked)
        .map(|step| step.step)
        .collect()
}

#[test]
fn every_spelling_leads_to_the_same_route() {
    for spelling in [
        "payments.shop",
        "payments.shop:80",
        "shop/payments:80",
        "80.payments.shop.svc.clusterset.local",
        "80.payments.shop.svc.clusterset.local.",
        "20080",
    ] {
        let walked = walk(&near(), &[far()], spelling).unwrap();
        assert!(walked.is_reachable && walked.is_certain, "{spelling}");
        let steps: Vec<_> = walked.steps.iter().map(|step| step.step).collect();
        assert_eq!(
            steps,
            [
                "name",
                "import port",
                "link",
                "tunnel",
                "peer",
                "offer",
                "accept",
                "export",
                "audience",
                "endpoints"
            ]
        );
    }
}

#[test]
fn what_cannot_be_seen_is_unknown() {
    let walked = walk(&near(), &[], "payments.shop").unwrap();
    assert!(walked.is_reachable && !walked.is_certain);
    assert_eq!(walked.steps.last().unwrap().step, "far side");
}

#[test]
fn each_step_can_be_what_blocks() {
    let walked = |change: fn(&mut Snapshot, &mut Snapshot)| {
        let (mut near, mut far) = (near(), far());
        change(&mut near, &mut far);
        let walked = walk(&near, &[far], "payments.shop").unwrap();
        assert!(!walked.is_reachable);
        blocked(&walked).join(" ")
    };
    let steps = [
        walked(|near, _| near.status.links.clear()),
        walked(|near, _| near.status.links[0].mode = "paused".to_owned()),
        walked(|near, _| near.status.links[0].tunnel = "down".to_owned()),
        walked(|near, _| near.imports.clear()),
        walked(|near, _| near.imports[0].ready = 0),
        walked(|near, _| near.status.links[0].accepted = vec!["bank/*".to_owned()]),
        walked(|_, far| far.exports.clear()),
        walked(|_, far| far.exports[0].open_to.clear()),
        walked(|_, far| far.exports[0].endpoints = 0),
        walked(|near, _| near.routes[0].candidates.clear()),
    ];
    assert_eq!(
        steps,
        [
            "link",
            "link",
            "tunnel",
            "offer",
            "offer",
            "accept",
            "export",
            "audience",
            "endpoints",
            "candidates"
        ]
    );
}

#[test]
fn a_service_without_a_route_is_not_offered_or_not_accepted() {
    let mut near = near();
    let walked = walk(&near, &[], "ledger.bank").unwrap();
    assert_eq!(blocked(&walked), ["name", "offer"]);
    let condition = serde_json::json!([{
        "code": "CRN070", "name": "not_accepted", "sinceMs": 1, "summary": "not accepted",
        "hint": "accept it", "peer": "west", "service": "ledger.bank",
    }]);
    near.status.conditions = json(condition);
    let walked = walk(&near, &[], "ledger.bank").unwrap();
    assert_eq!(blocked(&walked), ["name", "accept"]);
    let walked = walk(&near, &[], "payments.shop:81").unwrap();
    assert_eq!(blocked(&walked), ["name"]);
    let walked = walk(&near, &[], "20081").unwrap();
    assert_eq!(blocked(&walked), ["name"]);
}

#[test]
fn a_service_with_several_ports_needs_one() {
    let mut near = near();
    let mut second = near.routes[0].clone();
    second.name = "81.payments.shop.svc.clusterset.local".to_owned();
    near.routes.push(second);
    let trouble = walk(&near, &[], "payments.shop").err().unwrap();
    assert_eq!(trouble.why, "the service has these: 80, 81");
    assert!(walk(&near, &[], "payments.shop:81").is_ok());
}
