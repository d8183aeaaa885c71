//! The images of the Kit, built for real.

use gantry_kit::{Kit, recipes};
use gantry_model::container::ImageName;
use gantry_runtime::embedded::{
    File, Recipe,
    image::{Freshness, Images, ImagesConfig},
};

fn builder_recipes() -> Vec<Recipe> {
    recipes()
        .into_iter()
        .map(|recipe| Recipe {
            image: recipe.image,
            kit: match recipe.kit {
                Kit::None => gantry_runtime::Kit::None,
                Kit::Base => gantry_runtime::Kit::Base,
                Kit::Dev => gantry_runtime::Kit::Dev,
            },
            suite: recipe.suite.to_owned(),
            packages: recipe.packages,
            files: recipe
                .files
                .into_iter()
                .map(|file| File {
                    path: file.path.to_owned(),
                    mode: file.mode,
                    contents: file.contents,
                })
                .collect(),
            commands: recipe.commands,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn build_it() {
    let images = Images::open(ImagesConfig::new(builder_recipes())).await.unwrap();
    let name = std::env::args().last().filter(|n| n.starts_with("debian/")).unwrap_or("debian/13".into());
    let image = ImageName::parse("image", &name).unwrap();
    let mut p = images.progress();
    tokio::select! {
        r = images.ensure(&image, gantry_runtime::Kit::Base, Freshness::Cached) => eprintln!("{:?}", r.map_err(|e| { let mut s = format!("{e}"); let mut c: &dyn std::error::Error = &e; while let Some(x) = c.source() { s += &format!(": {x}"); c = x; } s })),
        _ = async { loop { p.changed().await.unwrap(); eprintln!("{:?}", p.borrow_and_update().as_ref().map(|p| (p.step.clone(), p.fraction))); } } => {}
    }
}
