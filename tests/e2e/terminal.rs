//! A person opens the terminal in a browser.

use std::time::Duration;

use anyhow::{Result, ensure};
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

/// Its own style is all that its policy lets it load.
fn the_page_of_the_api_shows_every_operation(browser: &Browser) -> Result<()> {
    browser.open("https://api.gantry.localhost:8443/docs")?;
    ensure!(browser.title()? == "Gantry API", "{:?}", browser.title()?);
    let seen = browser.script(
        "const summaries = [...document.querySelectorAll('main section:not(#schemas) summary')];
         const first = summaries[0];
         first.click();
         return {
             entries: summaries.length,
             opened: first.parentElement.open,
             styled: getComputedStyle(first).cursor,
             loaded: performance.getEntriesByType('resource').length,
         };",
    )?;
    ensure!(seen["entries"].as_u64().is_some_and(|entries| entries > 100), "{seen}");
    ensure!(seen["opened"] == true && seen["styled"] == "pointer", "{seen}");
    ensure!(seen["loaded"] == 0, "{seen}");
    Ok(())
}

#[test]
fn a_browser_types_into_the_terminal_and_reads_the_answer() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("shell")?;
        let container = gantry.create_running(&project, &[])?;
        gantry.wait_200(&gantry.url(&container, "terminal-1", "/"), Duration::from_mins(1))?;
        let browser = Browser::start(&gantry.ca_path(), gantry.address(), None)?;
        the_page_of_the_api_shows_every_operation(&browser)?;
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
