"use strict";
// The other services of this container stand beside this page: the same name, another service.
const [label, ...zone] = location.host.split(".");
const ids = label.match(/^([0-9a-f]{24}-[0-9a-f]{24})-/);
if (ids) {
  for (const link of document.querySelectorAll("[data-service]")) {
    const host = [`${ids[1]}-${link.dataset.service}`, ...zone].join(".");
    link.href = `${location.protocol}//${host}/`;
    link.firstElementChild.textContent = host;
  }
}
