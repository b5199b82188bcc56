// Keeps the page as it would be if it was fetched now. The server draws all of it; this exchanges what is different.
"use strict";

const news = new Set(["duplicate", "reopened", "party_joined", "healed", "gone", "given_up", "flood", "degraded", "paused"]);
const patience = 5000;
const pause = 1000;
let busy = false;
let again = false;
// The stream, whether it is there, what it told last, and when it is tried again.
let stream;
let open = false;
let last = document.body.dataset.cursor;
let later;

const sections = () => document.querySelectorAll(".live");
const shown = new Map([...sections()].map((section) => [section.id, section.innerHTML]));

// Whether what is shown is what is: the stream is there, and what it told of was fetched.
function say(live) {
  document.getElementById("connection").textContent = live ? "live" : "not live: the agent does not answer";
}

// Who reads the page keeps what is open, and where the keyboard is.
function exchange(section, fresh) {
  const held = document.activeElement;
  const place = section.contains(held) ? [...section.querySelectorAll("a, summary, [tabindex]")].indexOf(held) : -1;
  const open = [...section.querySelectorAll("details[open]")].map((details) => details.id);
  const told = section.querySelector("#news");
  const scrolled = section.querySelector(".scroll")?.scrollLeft ?? 0;
  section.replaceChildren(...fresh.childNodes);
  if (told) section.querySelector("#news").replaceWith(told);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (place >= 0) section.querySelectorAll("a, summary, [tabindex]")[place]?.focus({ preventScroll: true });
  const scroll = section.querySelector(".scroll");
  if (scroll) scroll.scrollLeft = scrolled;
}

function show(page) {
  if (page.body.dataset.version !== document.body.dataset.version) return location.reload();
  for (const section of sections()) {
    const fresh = page.getElementById(section.id);
    const html = fresh.innerHTML;
    if (shown.get(section.id) === html) continue;
    shown.set(section.id, html);
    exchange(section, fresh);
  }
  document.title = page.title;
  document.body.dataset.revision = page.body.dataset.revision;
  elapsed();
}

async function fetched() {
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) return false;
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    return true;
  } catch {
    return false;
  }
}

async function refresh() {
  again = true;
  if (busy) return;
  busy = true;
  // Nobody sees a hidden page; the stream says what is new when it is shown again.
  while (again && !document.hidden) {
    again = false;
    if (await fetched()) {
      say(open);
    } else {
      again = true;
      say(false);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  busy = false;
}

function elapsed() {
  for (const element of document.querySelectorAll("[data-since]")) {
    const seconds = Math.max(0, Math.round((Date.now() - Date.parse(element.dataset.since)) / 1000));
    const minutes = Math.floor(seconds / 60);
    const words = seconds < 120 ? `${seconds} s` : minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
    if (element.textContent !== words) element.textContent = words;
  }
}

function leave() {
  clearTimeout(later);
  stream?.close();
  open = false;
}

function follow() {
  leave();
  if (document.hidden) return;
  stream = new EventSource(`/api/v1/stream?after=${encodeURIComponent(last)}`);
  stream.addEventListener("open", () => {
    open = true;
    say(!again);
  });
  stream.addEventListener("message", ({ data, lastEventId }) => {
    last = lastEventId || last;
    const event = JSON.parse(data);
    if (news.has(event.kind)) document.getElementById("news").textContent = event.message;
  });
  stream.addEventListener("view", ({ data, lastEventId }) => {
    last = lastEventId || last;
    if (JSON.parse(data).revision !== document.body.dataset.revision) refresh();
  });
  stream.addEventListener("reload", refresh);
  stream.addEventListener("error", () => {
    open = false;
    say(false);
    // A browser comes again by itself, unless it was refused.
    if (stream.readyState === EventSource.CLOSED) later = setTimeout(follow, patience);
  });
  if (again) refresh();
}

elapsed();
setInterval(elapsed, 1000);
// A page that nobody sees takes no place from others.
document.addEventListener("visibilitychange", follow);
follow();
