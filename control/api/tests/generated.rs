//! The committed code is what the protocol files generate.
//!
//! After a change of a protocol file, `CORINTH_WRITE_GENERATED=1 cargo test -p corinth-api --test generated` writes
//! the code anew. Builds therefore need neither a code generator nor a build script.

use std::{env, fs, path::Path};

#[test]
fn generated_code_matches_the_protocol_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["corinth/tunnel/v1/tunnel.proto"];
    let descriptors =
        protox::compile(files, [root.join("proto")]).expect("the protocol files are valid");
    let modules = descriptors
        .file
        .into_iter()
        .map(|file| {
            (
                prost_build::Module::from_protobuf_package_name(file.package()),
                file,
            )
        })
        .collect();
    let generated = prost_build::Config::new()
        .generate(modules)
        .expect("the protocol files generate");

    for (module, code) in generated {
        let file = root.join("src/gen").join(module.to_file_name_or("corinth"));
        if env::var_os("CORINTH_WRITE_GENERATED").is_some() {
            fs::write(&file, code).expect("the source tree is writable");
        } else {
            let committed = fs::read_to_string(&file).unwrap_or_default();
            assert!(
                committed == code,
                "{} is out of date; run: CORINTH_WRITE_GENERATED=1 cargo test -p corinth-api --test generated",
                file.display()
            );
        }
    }
}
