//! The text of a configuration as a tree, and what is wrong with it as YAML.

use corinth_daemon::yaml::{self, DEPTH_MAX, Fault};
pub(super) use corinth_daemon::yaml::{Key, Kind, Node};

use super::mistake::{Findings, MistakeCode, Position, escaped, quote};

/// Largest configuration, in bytes: room for the 8,000 imports a cluster may have, and then some.
pub(super) const TEXT_MAX_BYTES: usize = 1024 * 1024;

/// Reads `text` into a tree. `None` if there is nothing to go on with; `found` then says why.
pub(super) fn parse(text: &str, found: &mut Findings) -> Option<Node> {
    if text.len() > TEXT_MAX_BYTES {
        found.add(
            Position::default(),
            MistakeCode::TooLarge,
            format!(
                "the file has {} bytes, more than {TEXT_MAX_BYTES}",
                text.len()
            ),
            "split the node, or move certificates out of `bundlePem` into files named by `bundle`",
        );
        return None;
    }
    let (root, fault) = yaml::read(text, TEXT_MAX_BYTES);
    if let Some((at, fault)) = fault {
        report(at, fault, found);
    }
    root
}

fn report(at: Position, fault: Fault, found: &mut Findings) {
    let (code, message, hint) = match fault {
        Fault::DuplicateKey(key) => {
            let key = key.as_deref().map_or_else(|| "a key".to_owned(), quote);
            let message = format!("{key} stands twice in the same mapping");
            (MistakeCode::DuplicateKey, message, "keep one of the two")
        }
        Fault::SecondDocument => (
            MistakeCode::Syntax,
            "a second YAML document begins here".to_owned(),
            "one file configures one node: remove the `---` and what follows",
        ),
        Fault::TooComplex => (
            MistakeCode::TooComplex,
            format!("the file nests deeper than {DEPTH_MAX} or repeats too much by aliases"),
            "write it plainly: a configuration needs few anchors and no deep nesting",
        ),
        Fault::Syntax(reason) => {
            let reason: String = reason.chars().flat_map(escaped).collect();
            let hint = "check indentation, quotes and brackets here and on the line above; never indent with tabs";
            (
                MistakeCode::Syntax,
                format!("not readable as YAML: {reason}"),
                hint,
            )
        }
    };
    found.add(at, code, message, hint);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        let mut found = Findings::default();
        let node = parse(text, &mut found);
        assert!(found.is_empty(), "{found:?}");
        node.expect("nothing was found wrong")
    }

    fn codes(text: &str) -> Vec<&'static str> {
        let mut found = Findings::default();
        parse(text, &mut found);
        let mistakes = found.finish::<()>(None, "c".as_ref()).unwrap_err();
        mistakes.iter().map(|mistake| mistake.code.code()).collect()
    }

    fn entry<'a>(node: &'a Node, key: &str) -> (&'a Key, &'a Node) {
        let Kind::Map(entries) = &node.kind else {
            panic!("not a mapping: {node:?}");
        };
        let (key, value) = entries
            .iter()
            .find(|(k, _)| k.text == key)
            .expect("the key is there");
        (key, value)
    }

    #[test]
    fn scalars_stay_as_written_and_know_their_place() {
        let root = tree(
            "a: 007\nb: 0x10 # c\nc: off\nd: [1.50, \"5\", ~]\ne: &x 1e3\nf: *x\nü: 1_000\ng: TRUE\n",
        );
        let text = |key| match &entry(&root, key).1.kind {
            Kind::Scalar(text) => text.clone(),
            other @ (Kind::Null | Kind::List(_) | Kind::Map(_)) => panic!("{other:?}"),
        };
        assert_eq!(text("a"), "007");
        assert_eq!(text("b"), "0x10");
        assert_eq!(text("c"), "off");
        assert_eq!(text("e"), "1e3");
        assert_eq!(text("f"), "1e3");
        assert_eq!(text("ü"), "1_000");
        assert_eq!(text("g"), "TRUE");
        let (key, value) = entry(&root, "b");
        assert_eq!(
            (key.at, value.at),
            (Position::new(2, 1), Position::new(2, 4))
        );
        assert_eq!(entry(&root, "f").1.at, Position::new(6, 4));
        let Kind::List(items) = &entry(&root, "d").1.kind else {
            panic!("not a list");
        };
        let scalar = |text: &str| Kind::Scalar(text.to_owned());
        let kinds: Vec<_> = items.iter().map(|item| item.kind.clone()).collect();
        assert_eq!(kinds, [scalar("1.50"), scalar("5"), Kind::Null]);
    }

    #[test]
    fn merge_keys_and_aliases_work() {
        let root = tree("base: &b {x: 1}\nuse:\n  <<: *b\n  y: 2\n");
        assert!(matches!(
            entry(entry(&root, "use").1, "x").1.kind,
            Kind::Scalar(_)
        ));
    }

    #[test]
    fn an_empty_file_is_nothing() {
        assert_eq!(tree("# only a comment\n").kind, Kind::Null);
        assert_eq!(tree("").kind, Kind::Null);
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for (from, to) in "abcdefghi".chars().zip("bcdefghij".chars()) {
            let items = vec![format!("*{from}"); 10].join(",");
            bomb.push_str(&format!("{to}: &{to} [{items}]\n"));
        }
        assert_eq!(codes(&bomb), ["CRN903"]);
        assert_eq!(codes(&"[".repeat(100_000)), ["CRN903"]);
        assert_eq!(
            codes(&format!("a: {}{}", "[".repeat(20), "]".repeat(20))),
            ["CRN903"]
        );
        assert_eq!(codes(&"a\n".repeat(TEXT_MAX_BYTES)), ["CRN902"]);
        assert_eq!(codes("a: &a [*a]\n"), ["CRN901"]);
    }

    #[test]
    fn broken_text_has_a_line() {
        for text in [
            "a: 1\nb: [1, 2\n",
            "a: 1\n\tb: 2\n",
            "a: 1\n--- \nb: 2\n",
            "a: \"x\n",
            "a: 1\na: 2\n",
        ] {
            let mut found = Findings::default();
            parse(text, &mut found);
            let mistakes = found.finish::<()>(None, "c".as_ref()).unwrap_err();
            assert!(mistakes.iter().all(|m| m.at.line >= 1), "{mistakes}");
        }
    }
}
