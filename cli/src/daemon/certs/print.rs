//! What `gantry certs` asks, and how answers are printed.

use anyhow::Context as _;
use gantry_certs::diagnosis::printable;
use serde::Serialize;

use super::{Answer, Question, Refusal, ask_certs, revoke::Wish};
use crate::{
    args::{CertsCommand, CertsList, Meant},
    daemon::{explain, files::Files, trust},
    exit::{Class, Failure},
    output::{self, Format},
};

/// `gantry certs`
pub(crate) fn certs(command: CertsCommand, format: Format) -> Result<(), Failure> {
    match command {
        CertsCommand::List(list) => {
            let format = if list.json { Format::Json } else { format };
            print_list(&list, format)
        }
        CertsCommand::Renew { name, no_wait, meant } => {
            print_renewal(&meant, &Question::Renew { name, waits: !no_wait }, format)
        }
        CertsCommand::Revoke { name, reason, serial, force, meant } => {
            let wish = Wish { name, serial, reason: reason.to_string(), force };
            print_revocation(&meant, &Question::Revoke(wish), format)
        }
        CertsCommand::Trust { uninstall, print, meant } => {
            let way = match (print, uninstall) {
                (true, _) => trust::Way::Print,
                (false, true) => trust::Way::Uninstall,
                (false, false) => trust::Way::Install,
            };
            trust::trust(way, &meant)
        }
    }
}

fn asked(meant: &Meant, question: &Question) -> Result<Answer, Failure> {
    let config = explain::config_of(meant.state.as_deref(), &meant.settings)?;
    let socket = Files::new(&config.server.state).socket();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let answer = runtime.block_on(ask_certs(&socket, question)).map_err(|error| {
        let message = format!("cannot ask through {}: {error}", socket.display());
        Failure::new(Class::Unavailable, message)
            .hint("does Gantry run, and on this state directory (--state)?")
    })?;
    let Answer::Refused(refusal, why) = answer else { return Ok(answer) };
    let why = printable(&why);
    Err(match refusal {
        Refusal::Unknown => Failure::new(Class::NotFound, why)
            .hint("`gantry certs list` shows all; `gantry doctor NAME` says why there is none"),
        Refusal::Conflict => Failure::new(Class::Conflict, why),
        Refusal::Failed => Failure::new(Class::General, why)
            .hint("`gantry doctor NAME` looks at what a CA would look at"),
    })
}

fn print_list(list: &CertsList, format: Format) -> Result<(), Failure> {
    let (filter, page, limit) = (list.filter.clone(), list.page, list.limit);
    let answer = asked(&list.meant, &Question::List { filter, page, limit })?;
    let Answer::Listed(page) = answer else { return Err(unexpected()) };
    if format == Format::Json {
        return output::json(&serde_json::to_value(&page).context("no JSON")?);
    }
    let cell = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = page.certificates.iter().map(|entry| {
        let more = match entry.hostnames.len() {
            0 | 1 => String::new(),
            count => format!(" (+{})", count - 1),
        };
        let issuer = entry.issuer.clone().or_else(|| entry.directory.clone());
        vec![
            format!("{}{more}", entry.name),
            word(&entry.kind),
            word(&entry.state),
            if entry.is_shown { "yes".to_owned() } else { "no".to_owned() },
            cell(&issuer),
            cell(&entry.serial),
            cell(&entry.not_before),
            cell(&entry.not_after),
            cell(&entry.next_attempt_at),
        ]
    });
    let header =
        ["NAME", "KIND", "STATE", "SHOWN", "ISSUER", "SERIAL", "FROM", "UNTIL", "NEXT ATTEMPT"];
    output::table(&header, rows.collect())?;
    for entry in &page.certificates {
        if let Some(error) = &entry.last_error {
            let (name, count, when) =
                (&entry.name, entry.failed_attempts, cell(&entry.last_error_at));
            output::line(&format!(
                "{name}: {count} attempts have failed, the last at {when}: {}",
                printable(error)
            ))?;
        }
    }
    let (shown, total) = (page.certificates.len(), page.total);
    if shown < total {
        output::note(&format!(
            "{shown} of {total} (page {}); --page, --limit and a part of a name show others",
            page.number
        ));
    }
    Ok(())
}

fn print_renewal(meant: &Meant, question: &Question, format: Format) -> Result<(), Failure> {
    let answer = asked(meant, question)?;
    let value = if let Answer::Renewed(entry) = &answer {
        serde_json::to_value(entry)
    } else {
        serde_json::to_value(&answer)
    };
    if format == Format::Json {
        return output::json(&value.context("no JSON")?);
    }
    match answer {
        Answer::Renewed(entry) => output::line(&format!(
            "{} is renewed: serial {}, until {}.",
            entry.name,
            entry.serial.unwrap_or_default(),
            entry.not_after.unwrap_or_default()
        )),
        Answer::Begun { name } => output::line(&format!(
            "{name} is being renewed; `gantry certs list` shows the outcome."
        )),
        Answer::Listed(_) | Answer::Issuer { .. } | Answer::Revoked(_) | Answer::Refused(..) => {
            Err(unexpected())
        }
    }
}

fn print_revocation(meant: &Meant, question: &Question, format: Format) -> Result<(), Failure> {
    let Answer::Revoked(revoked) = asked(meant, question)? else { return Err(unexpected()) };
    if format == Format::Json {
        return output::json(&serde_json::to_value(&revoked).context("no JSON")?);
    }
    let (name, serial, reason) = (&revoked.name, &revoked.serial, &revoked.reason);
    output::line(&format!("{name} was revoked at {}: serial {serial}, {reason}.", revoked.at))?;
    if let Some(new) = &revoked.replaced_by {
        let serial = new.serial.as_deref().unwrap_or_default();
        let end = new.not_after.as_deref().unwrap_or_default();
        return output::line(&format!("In its place: serial {serial}, until {end}."));
    }
    let why = revoked.replacement_error.as_deref().unwrap_or("nothing has come yet");
    output::line(&format!("Nothing is in its place: {}.", printable(why)))
}

fn unexpected() -> Failure {
    Failure::new(
        Class::General,
        "the running Gantry answers something else; is it of another version?",
    )
}

/// The word that a value is in JSON.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
