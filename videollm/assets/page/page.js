// What the page does without asking the server: go to a second of a clip, change the clip, drop files anywhere.
(() => {
  const clipOf = (id) => document.getElementById(`clip-${id}`);

  function bringToFront(id) {
    for (const clip of document.querySelectorAll(".clip, .moments")) clip.hidden = clip.dataset.clip !== id;
    for (const tab of document.querySelectorAll(".clip-tab")) {
      tab.setAttribute("aria-selected", String(tab.dataset.clip === id));
      tab.tabIndex = tab.dataset.clip === id ? 0 : -1;
    }
  }

  function goTo(id, seconds) {
    const clip = clipOf(id);
    if (!clip) return;
    bringToFront(id);
    const player = clip.querySelector("video, audio");
    if (player) {
      player.currentTime = seconds;
      mark(clip, seconds);
    }
    const box = clip.getBoundingClientRect();
    if (box.top < 0 || box.top > window.innerHeight - 120) {
      const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      clip.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
    }
  }

  // The playheads, what is told of this time, and the last frame of the strip that had come by then.
  function mark(clip, seconds) {
    const head = clip.querySelector(".playhead");
    const length = Number(clip.dataset.duration);
    if (head && length > 0) head.setAttribute("x", String(Math.min(998, (seconds / length) * 1000)));
    const moments = document.querySelector(`.moments[data-clip="${clip.dataset.clip}"]`);
    if (moments && length > 0) {
      for (const other of moments.querySelectorAll(".playhead")) other.style.left = `${(seconds / length) * 100}%`;
      for (const span of moments.querySelectorAll("[data-until]")) {
        const now = span.dataset.clip === clip.dataset.clip && Number(span.dataset.at) <= seconds + 0.01
          && seconds + 0.01 < Number(span.dataset.until);
        if (now && span.matches(".told:not(.here)")) {
          const list = span.closest("ol");
          if (!list.contains(document.activeElement))
            list.scrollTo({ top: span.offsetTop - list.clientHeight / 2 + span.clientHeight / 2, behavior: "smooth" });
        }
        span.classList.toggle("here", now);
      }
    }
    let here = null;
    for (const frame of clip.querySelectorAll(".frame"))
      if (Number(frame.dataset.at) <= seconds + 0.01) here = frame;
    for (const frame of clip.querySelectorAll(".frame.here")) if (frame !== here) frame.classList.remove("here");
    if (here && !here.classList.contains("here")) {
      here.classList.add("here");
      const strip = here.parentElement;
      strip.scrollTo({ left: here.offsetLeft - strip.clientWidth / 2 + here.clientWidth / 2, behavior: "smooth" });
    }
  }

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    const link = target.closest('a[href*="#at-"]');
    if (link) {
      const found = /#at-([\w-]+)-([\d.]+)$/.exec(link.getAttribute("href"));
      if (found) {
        event.preventDefault();
        event.stopPropagation();
        goTo(found[1], Number(found[2]));
      }
      return;
    }
    const place = target.closest("[data-at]");
    if (place) return goTo(place.dataset.clip, Number(place.dataset.at));
    const tab = target.closest(".clip-tab");
    if (tab) return bringToFront(tab.dataset.clip);
    const bar = target.closest(".sound, .bar");
    if (bar) {
      const box = bar.getBoundingClientRect();
      const length = Number(clipOf(bar.dataset.clip).dataset.duration);
      return goTo(bar.dataset.clip, Math.max(0, (event.clientX - box.left) / box.width) * length);
    }
    const example = target.closest(".example");
    if (example) document.getElementById(example.dataset.example)?.click();
  }, true);

  document.addEventListener("keydown", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    if (event.key === "Escape" && target.closest("#question"))
      document.querySelector("#question .stop-button")?.click();
    // Of a row of many, one is reached by Tab, the others from there by arrow keys.
    const row = target.closest("[data-row]");
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (row && (event.key in steps || event.key === "Home" || event.key === "End")) {
      event.preventDefault();
      const items = [...row.querySelectorAll("button")];
      const index = items.indexOf(target.closest("button"));
      const next = event.key === "Home" ? items[0] : event.key === "End" ? items.at(-1) : items[index + steps[event.key]];
      if (!next) return;
      for (const item of items) item.tabIndex = item === next ? 0 : -1;
      next.focus();
      if (next.matches(".clip-tab")) bringToFront(next.dataset.clip);
    }
  });

  // What is told of the clip in front is shown; what was marked and where one was stays so when it is drawn anew.
  let focused = null;
  document.addEventListener("focusin", (event) => {
    const list = event.target.closest?.("#moments [data-row]");
    focused = list ? [list.getAttribute("aria-label"), event.target.dataset.at] : null;
  });
  function redrawn() {
    const clip = document.querySelector(".clip:not([hidden])");
    for (const moments of document.querySelectorAll(".moments")) moments.hidden = moments.dataset.clip !== clip?.dataset.clip;
    const player = clip?.querySelector("video, audio");
    if (player) mark(clip, player.currentTime);
    if (focused && document.activeElement === document.body)
      for (const list of document.querySelectorAll(".moments:not([hidden]) [data-row]"))
        if (list.getAttribute("aria-label") === focused[0])
          list.querySelector(`[data-at="${focused[1]}"]`)?.focus({ preventScroll: true });
  }

  // Gradio leaves these two without a name.
  const named = { "submit-button": "Ask", "stop-button": "Stop" };
  new MutationObserver((changes) => {
    if (changes.some((change) => change.target.closest?.("#watch"))) redrawn();
    // Its labels of messages are their source, signs written by their numbers: the words themselves are to be read.
    for (const message of document.querySelectorAll("#chat [data-testid][aria-label]")) message.removeAttribute("aria-label");
    for (const [kind, name] of Object.entries(named))
      for (const button of document.querySelectorAll(`#question .${kind}:not([aria-label])`)) {
        button.setAttribute("aria-label", name);
        button.title = name;
      }
  }).observe(document, { childList: true, subtree: true });

  // Events of players do not bubble: they are caught on their way down.
  document.addEventListener("timeupdate", (event) => {
    const clip = event.target.closest?.(".clip");
    if (clip) mark(clip, event.target.currentTime);
  }, true);
  document.addEventListener("error", (event) => {
    const clip = event.target.closest?.(".clip");
    if (clip && event.target.classList.contains("player")) {
      event.target.hidden = true;
      clip.querySelector(".unplayable").hidden = false;
    }
  }, true);

  // Files may be dropped anywhere on the page.
  const holdsFiles = (event) => Array.from(event.dataTransfer?.types ?? []).includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dragging");
    if (!holdsFiles(event) || event.target.closest?.("#drop")) return;
    event.preventDefault();
    const input = document.querySelector("#drop input[type=file]");
    if (!input) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
})();
