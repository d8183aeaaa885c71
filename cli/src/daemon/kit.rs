//! The Kit's data in the words of the crates that need it and may not know it.

use gantry_model::Service;
use gantry_runtime::{
    Kit,
    embedded::{File, Recipe},
};

/// What starts a service inside a container.
pub(super) fn start_command(service: Service, index: u16) -> Option<Vec<String>> {
    gantry_kit::start_command(service, index)
}

/// What images can be made, as the runtime's builder takes it.
pub(super) fn recipes() -> Vec<Recipe> {
    let recipes = gantry_kit::recipes().into_iter();
    recipes
        .map(|recipe| Recipe {
            image: recipe.image,
            kit: match recipe.kit {
                gantry_kit::Kit::None => Kit::None,
                gantry_kit::Kit::Base => Kit::Base,
                gantry_kit::Kit::Dev => Kit::Dev,
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
