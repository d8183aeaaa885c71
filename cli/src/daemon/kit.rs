//! The Kit's data in the words of the crates that need it and may not know it.

use gantry_model::{Scheme, Service};
use gantry_proxy::KitPort;
use gantry_runtime::{
    Kit,
    embedded::{File, Recipe},
};

/// How the edge reaches a service.
pub(super) fn port(service: Service) -> KitPort {
    let entry = gantry_kit::entry(service);
    KitPort {
        provided: entry.provided,
        scheme: match entry.scheme {
            gantry_kit::Scheme::Http => Scheme::Http,
        },
        // The edge takes a plain function, which cannot remember its service: one for each.
        port: PORTS.get(service as usize).copied().unwrap_or(no_port),
    }
}

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

/// Services are counted from 0 in the order of [`Service::ALL`].
fn port_of<const SERVICE: usize>(index: u16) -> u16 {
    Service::ALL.get(SERVICE).map_or(0, |service| gantry_kit::entry(*service).port(index))
}

fn no_port(_: u16) -> u16 {
    0
}

const PORTS: [fn(u16) -> u16; Service::ALL.len()] = [
    port_of::<0>,
    port_of::<1>,
    port_of::<2>,
    port_of::<3>,
    port_of::<4>,
    port_of::<5>,
    port_of::<6>,
    port_of::<7>,
    port_of::<8>,
    port_of::<9>,
    port_of::<10>,
    port_of::<11>,
    port_of::<12>,
    port_of::<13>,
    port_of::<14>,
    port_of::<15>,
    port_of::<16>,
    port_of::<17>,
    port_of::<18>,
    port_of::<19>,
    port_of::<20>,
    port_of::<21>,
    port_of::<22>,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_reached_where_the_catalogue_says() {
        for service in Service::ALL {
            let port = port(service).port;
            for index in [service.index_min(), 1, 2] {
                assert_eq!(port(index), gantry_kit::entry(service).port(index), "{service:?}");
            }
        }
    }
}
