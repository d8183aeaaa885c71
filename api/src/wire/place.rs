//! Servers and what the API says about itself.

use std::collections::BTreeMap;

use gantry_control as control;
use gantry_model::ServerName;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Timestamp};
use crate::Machine;

/// A server as a part of a container.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerLite {
    name: String,
    country: Option<String>,
    country_name: Option<String>,
    city: Option<String>,
    region: Option<String>,
    datacenter: Option<String>,
    is_free: bool,
    specs: Option<Specs>,
    expires_at: Option<Timestamp>,
}

/// What a server has; `null` where it is not known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Specs {
    cpu_cores: Option<u32>,
    ram_gb: Option<u32>,
    disk_gb: Option<u32>,
    shared_compute: bool,
}

/// A server of this installation in the shape of a rental: always active, free, without an end.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rental {
    id: Hex,
    /// The id that a new container names.
    server_id: Hex,
    name: String,
    region: Option<String>,
    /// `active` in lists, and `ready` on a single server; `maintenance` for one that is not configured any
    /// more, whose containers can only be looked at.
    status: &'static str,
    rental_start: Timestamp,
    rental_end: Option<Timestamp>,
    amount: u32,
    setup_fee_cents: u32,
    total_paid_cents: u32,
    renewal_pricing_frozen: Option<bool>,
    remaining_days: Option<u32>,
    pool_id: Option<Hex>,
    is_free_tier: bool,
    server: RentedServer,
}

/// A server as a part of a rental.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RentedServer {
    id: Hex,
    name: String,
    country: Option<String>,
    region: Option<String>,
    city: Option<String>,
    datacenter: Option<String>,
    model: Option<String>,
    is_vm: bool,
    container_capacity: Capacity,
    specs: Option<Specs>,
}

/// How many containers a server holds and may hold; `null` is unlimited.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Capacity {
    used: Option<u64>,
    max: Option<u64>,
}

/// A server that containers can be created on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Available {
    id: Hex,
    name: String,
    country: Option<String>,
    region: Option<String>,
    city: Option<String>,
    datacenter: Option<String>,
    model: Option<String>,
    is_vm: bool,
    category: Option<String>,
    featured: bool,
    popularity_rank: Option<u32>,
    setup_time_minutes: u32,
    delivery_hours: u32,
    specs: Option<Specs>,
}

/// How the caller's request looked from here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ip {
    pub(crate) ip: String,
    pub(crate) user_agent: Option<String>,
    /// Without credentials and cookies.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) referer: Option<String>,
    pub(crate) timestamp: Timestamp,
    pub(crate) is_logged: bool,
    pub(crate) protocol: String,
    /// Where the address lies; not looked up.
    pub(crate) ip_info: Option<String>,
}

/// Whether the API answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    pub(crate) status: &'static str,
    pub(crate) version: &'static str,
}

impl Specs {
    /// Containers share all of it. What is less than a whole GiB is left out.
    fn new(machine: &Machine) -> Self {
        let gib = |bytes: u64| u32::try_from(bytes >> 30).unwrap_or(u32::MAX);
        Self {
            cpu_cores: machine.cpu_cores,
            ram_gb: machine.memory_bytes.map(gib),
            disk_gb: machine.disk_bytes.map(gib),
            shared_compute: true,
        }
    }
}

impl ServerLite {
    pub(crate) fn new(name: &ServerName, machine: &Machine) -> Self {
        Self {
            name: name.to_string(),
            country: None,
            country_name: None,
            city: None,
            region: None,
            datacenter: None,
            is_free: true,
            specs: Some(Specs::new(machine)),
            expires_at: None,
        }
    }
}

impl Rental {
    pub(crate) fn new(view: &control::ServerView, status: &'static str, machine: &Machine) -> Self {
        Self {
            id: view.id.into(),
            server_id: view.id.into(),
            name: view.name.to_string(),
            region: None,
            status,
            rental_start: Timestamp(view.created_at_ms),
            rental_end: None,
            amount: 0,
            setup_fee_cents: 0,
            total_paid_cents: 0,
            renewal_pricing_frozen: None,
            remaining_days: None,
            pool_id: None,
            is_free_tier: true,
            server: RentedServer {
                id: view.id.into(),
                name: view.name.to_string(),
                country: None,
                region: None,
                city: None,
                datacenter: None,
                model: None,
                is_vm: false,
                container_capacity: Capacity { used: Some(view.containers), max: None },
                specs: Some(Specs::new(machine)),
            },
        }
    }
}

impl Available {
    pub(crate) fn new(view: &control::ServerView, machine: &Machine) -> Self {
        Self {
            id: view.id.into(),
            name: view.name.to_string(),
            country: None,
            region: None,
            city: None,
            datacenter: None,
            model: None,
            is_vm: false,
            category: None,
            featured: false,
            popularity_rank: None,
            setup_time_minutes: 0,
            delivery_hours: 0,
            specs: Some(Specs::new(machine)),
        }
    }
}
