//! A person opens the terminal in a browser.

use std::time::Duration;

use anyhow::ensure;
use gantry_tests::{Browser, Options, walk};

/// The characters on the screen of the page's terminal.
const SCREEN: &str = "
    const buffer = window.terminal && window.terminal.buffer.active;
    if (!buffer) return '';
    let text = '';
    for (let line = 0; line < buffer.length; line++) {
        text += buffer.getLine(line).translateToString(true) + '\\n';
    }
    return text.trim();";

#[test]
fn a_browser_types_into_the_terminal_and_reads_the_answer() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("shell")?;
        let container = gantry.create_running(&project, &[])?;
        // By then the machine's network has come to rest, which a browser wants.
        gantry.wait_200(&gantry.url(&container, "terminal-1", "/"), Duration::from_mins(1))?;
        let browser = Browser::start(&gantry.ca_path(), gantry.address(), None)?;
        let url = gantry.url(&container, "terminal-1", "/");
        browser.open(&url)?;
        let title = browser.title()?;
        ensure!(title.contains("terminal-1"), "the page is {title:?}");
        let soon = Duration::from_mins(1);
        browser.wait_script("a prompt in the terminal", SCREEN, soon)?;
        browser.press("echo $((6*7))\n")?;
        let answered = format!(
            "const screen = (() => {{ {SCREEN} }})();
             return screen.split('\\n').some((line) => line.trim() === '42');"
        );
        if let Err(error) = browser.wait_script("42 on the screen", &answered, soon) {
            return Err(error.context(format!("the screen shows {}", browser.script(SCREEN)?)));
        }
        // The session outlives the page: who comes back finds what was there.
        browser.open("about:blank")?;
        browser.open(&url)?;
        browser.wait_script("42 again after coming back", &answered, soon)?;
        Ok(())
    });
}
