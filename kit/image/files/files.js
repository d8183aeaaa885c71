"use strict";
// Adds to a directory's listing what a listing cannot: uploads by button and by dropping, new
// folders, renaming, deleting. All of it is WebDAV on the same URLs.

const bar = document.createElement("div");
bar.id = "bar";
const jobs = document.createElement("div");
jobs.id = "jobs";

function button(text, action) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.onclick = action;
  return element;
}

function job(text) {
  const line = document.createElement("div");
  line.textContent = text;
  jobs.append(line);
  return line;
}

// One request, as text of what went wrong or null.
async function dav(method, path, headers = {}) {
  try {
    const answer = await fetch(path, { method, headers });
    return answer.ok ? null : `${answer.status} ${answer.statusText}`;
  } catch (error) {
    return String(error);
  }
}

// fetch tells nothing about how far a body is; the older way does.
function put(path, file, line) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("PUT", path);
    request.upload.onprogress = (event) => {
      const share = event.total ? Math.floor((100 * event.loaded) / event.total) : 100;
      line.textContent = `${file.name}: ${share} %`;
    };
    request.onload = () => resolve(request.status < 300 ? null : `${request.status} ${request.statusText}`);
    request.onerror = () => resolve("the connection was lost");
    request.send(file);
  });
}

async function upload(files) {
  let failed = 0;
  for (const file of files) {
    const line = job(`${file.name}: 0 %`);
    const error = await put(location.pathname + encodeURIComponent(file.name), file, line);
    if (error) {
      failed += 1;
      line.className = "failed";
      line.textContent = `${file.name}: ${error}`;
    }
  }
  if (!failed && files.length) location.reload();
}

async function act(method, path, headers) {
  const error = await dav(method, path, headers);
  if (error) job(`${decodeURIComponent(path)}: ${error}`).className = "failed";
  else location.reload();
}

const chooser = document.createElement("input");
chooser.type = "file";
chooser.multiple = true;
chooser.hidden = true;
chooser.onchange = () => upload(chooser.files);

bar.append(
  button("Upload", () => chooser.click()),
  button("New folder", () => {
    const name = prompt("Name of the folder");
    if (name) act("MKCOL", `${location.pathname}${encodeURIComponent(name)}/`);
  }),
  chooser,
);

function decorate() {
  document.querySelector("h2").after(bar, jobs);
  for (const row of document.querySelectorAll("tbody tr")) {
    const link = row.querySelector("a");
    const cell = row.insertCell();
    cell.className = "act";
    const path = link && new URL(link.href).pathname;
    if (!path || !path.startsWith(location.pathname) || path === location.pathname) continue;
    const name = decodeURIComponent(path.slice(location.pathname.length).replace(/\/$/, ""));
    cell.append(
      button("Rename", () => {
        const to = prompt("New name", name);
        if (!to || to === name) return;
        const target = location.pathname + encodeURIComponent(to) + (path.endsWith("/") ? "/" : "");
        act("MOVE", path, { Destination: location.origin + target, Overwrite: "F" });
      }),
      " ",
      button("Delete", () => {
        if (confirm(`Delete ${name}${path.endsWith("/") ? " and all in it" : ""}?`)) act("DELETE", path);
      }),
    );
  }
  const head = document.querySelector("thead tr");
  if (head) head.append(document.createElement("th"));
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", () => document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  upload(event.dataTransfer.files);
});
if (document.readyState === "loading") addEventListener("DOMContentLoaded", decorate);
else decorate();
