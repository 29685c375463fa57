//! Bundles that are taken, and those that are not.

use super::*;
use crate::testing::*;

#[test]
fn pem_text_with_several_roots_is_read_in_order() {
    let [one, two] = [(); 2].map(|()| Forge::root(A));
    let text = format!(
        "roots of a.test\n{}\nand\n{}",
        pem(one.certificate()),
        pem(two.certificate())
    );
    let bundle = Bundle::from_pem(domain(A), text.as_bytes(), 3).unwrap();
    assert_eq!(
        bundle.roots(),
        [one.certificate().clone(), two.certificate().clone()]
    );
    assert_eq!((bundle.trust_domain(), bundle.sequence()), (&domain(A), 3));
}

#[test]
fn unfit_text_is_told_apart() {
    let root = pem(Forge::root(A).certificate());
    let leaf = pem(&Forge::root(A).leaf(&gateway_uri(A), |_| {}).chain[0]);
    let no_sign = Forge::root(A).intermediate("x", |p| {
        p.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign]
    });
    let constrained = Forge::root(A).intermediate("narrow", |p| {
        let subtree = der(0x30, &der(0x86, b"a.test"));
        let content = der(0x30, &der(0xa0, &subtree));
        p.custom_extensions
            .push(rcgen::CustomExtension::from_oid_content(
                NAME_CONSTRAINTS,
                content,
            ));
    });
    let cases = [
        (String::new(), "no certificate in PEM form"),
        ("a text".to_owned(), "no certificate in PEM form"),
        (
            root.replace("CERTIFICATE", "PRIVATE KEY"),
            "no certificate in PEM form",
        ),
        (
            root[..root.len() / 2].to_owned(),
            "no certificate in PEM form",
        ),
        (root.replace('M', "*"), "no certificate in PEM form"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "certificate 1 of the bundle",
        ),
        (
            format!("{root}{leaf}"),
            "certificate 2 of the bundle of a.test is not an authority",
        ),
        (pem(no_sign.certificate()), "not an authority"),
        (
            pem(constrained.certificate()),
            "(\"CN=narrow\") has URI name constraints",
        ),
        (root.repeat(ROOTS_MAX + 1), "more than 32 roots"),
        ("x".repeat(PEM_MAX_BYTES + 1), "262145 bytes"),
    ];
    for (text, words) in cases {
        let error = Bundle::from_pem(domain(A), text.as_bytes(), 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
}

#[test]
fn sequence_only_grows_and_fixes_the_content() {
    let [one, two] = [(); 2].map(|()| Forge::root(A));
    let bundle = |forge: &Forge, sequence| {
        Bundle::new(domain(A), vec![forge.certificate().clone()], sequence).unwrap()
    };
    let mut set = BundleSet::new();
    set.insert(bundle(&one, 5)).unwrap();
    set.insert(bundle(&one, 5)).unwrap();
    let conflict = BundleError::Conflict {
        trust_domain: domain(A),
        sequence: 5,
    };
    assert_eq!(set.insert(bundle(&two, 5)), Err(conflict));
    let older = BundleError::Older {
        trust_domain: domain(A),
        held: 5,
        offered: 4,
    };
    assert_eq!(set.insert(bundle(&two, 4)), Err(older));
    assert_eq!(
        set.bundle(&domain(A)).unwrap().roots(),
        [one.certificate().clone()]
    );
    set.insert(bundle(&two, 6)).unwrap();
    assert_eq!(
        set.bundle(&domain(A)).unwrap().roots(),
        [two.certificate().clone()]
    );
    assert!(set.bundle(&domain(B)).is_none());
}
