//! What holds for any text, and between `parse` and `validate`.

use proptest::prelude::*;

use crate::manifest::{parse, validate};

/// Lines that are right, nearly right and wrong, so that generated text gets past the first key.
fn line() -> impl Strategy<Value = String> {
    let values = prop_oneof![
        Just("1".to_owned()),
        Just("2".into()),
        Just("\"3\"".into()),
        Just("true".into()),
        Just("~".into()),
        Just("[]".into()),
        Just("{}".into()),
        Just("[api, \"${PORT}\"]".into()),
        Just("/healthz".into()),
        Just("{ http: /, interval: 1s }".into()),
        Just("{ readiness: { tcp: true } }".into()),
        Just("{ liveness: { exec: [a] } }".into()),
        Just("[a.localhost]".into()),
        Just("{ A: \"${HOST}\" }".into()),
        Just("{ order: stop-first }".into()),
        Just("warn".into()),
        Just("8080".into()),
        Just("{ a: \"${A}\" }".into()),
        "[ -~]{0,12}",
    ];
    let keys = prop_oneof![
        Just("static"),
        Just("command"),
        Just("replicas"),
        Just("domains"),
        Just("env"),
        Just("files"),
        Just("port"),
        Just("health"),
        Just("deploy"),
        Just("drift"),
        Just("retain"),
        Just("restart"),
        Just("x-mine"),
        Just("image"),
    ];
    (keys, values).prop_map(|(key, value)| format!("    {key}: {value}\n"))
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        let _ = parse(&text, "m", "/srv");
    }

    #[test]
    fn any_yaml_like_text_is_answered(text in "[a-c:{}\\[\\],&*!|>'\"#%@\\-\\n \\t?~0-9$]{0,120}") {
        if let Err(errors) = parse(&text, "m", "/srv") {
            prop_assert!(errors.iter().count() > 0);
            for error in &errors {
                prop_assert!(error.line >= 1 && error.column >= 1);
                prop_assert!(error.offset <= text.len());
                prop_assert!(text.is_char_boundary(error.offset));
            }
        }
    }

    /// A good manifest, damaged anywhere, is understood or refused with a place inside the text.
    #[test]
    fn a_damaged_manifest_is_answered(at in 0.0..1.0f64, cut in 0usize..20, put in "[ -~\\n]{0,6}") {
        let text = super::EXAMPLES[4];
        let mut from = (text.len() as f64 * at) as usize;
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        let rest: String = text[from..].chars().skip(cut).collect();
        let damaged = format!("{}{put}{rest}", &text[..from]);
        if let Err(errors) = parse(&damaged, "m", "/srv") {
            for error in &errors {
                prop_assert!(damaged.is_char_boundary(error.offset), "{}", errors);
                prop_assert!(damaged.is_char_boundary(error.offset + error.len), "{}", errors);
                let line = damaged[..error.offset].matches('\n').count() as u32 + 1;
                prop_assert_eq!(error.line, line, "{}", errors);
            }
        }
    }

    #[test]
    fn what_parse_makes_validates(lines in proptest::collection::vec(line(), 0..8)) {
        let text = format!("services:\n  a:\n    command: [a]\n{}", lines.concat());
        let site = format!("services:\n  a:\n    static: .\n{}", lines.concat());
        for text in [text, site] {
            if let Ok(manifest) = parse(&text, "m", "/srv") {
                for declared in &manifest.services {
                    prop_assert_eq!(validate(&declared.spec), Ok(()));
                    let json = serde_json::to_string(&declared.spec).unwrap();
                    prop_assert_eq!(&serde_json::from_str::<crate::spec::ServiceSpec>(&json).unwrap(), &declared.spec);
                }
            }
        }
    }
}
