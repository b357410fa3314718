//! What a node does with a site, as one small program for the crash tests: take a folder in, stage it, switch.
//! `content-crash-child DATA SOURCE NAME`

use std::{error::Error, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [data, source, name] = args.as_slice() else { return Err("DATA SOURCE NAME".into()) };
    let site = Path::new(data).join("site");
    let blobs = content::Blobs::open(&Path::new(data).join("store"))?;
    let artifact = content::intake::from_folder(&blobs, Path::new(source), &mut |_| {})?;
    content::place::stage(&blobs, &artifact, &site, name, &mut |_| {})?;
    content::links::switch(&site.join("current"), name)?;
    Ok(())
}
