// What the page does without asking the server: go to a second of a clip, change the clip, drop files anywhere.
(() => {
  const clipOf = (id) => document.getElementById(`clip-${id}`);

  function bringToFront(id) {
    for (const clip of document.querySelectorAll(".clip")) clip.hidden = clip.dataset.clip !== id;
    for (const tab of document.querySelectorAll(".clip-tab"))
      tab.setAttribute("aria-selected", String(tab.dataset.clip === id));
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

  // The playhead, and the last frame of the strip that had come by then.
  function mark(clip, seconds) {
    const head = clip.querySelector(".playhead");
    const length = Number(clip.dataset.duration);
    if (head && length > 0) head.setAttribute("x", String(Math.min(998, (seconds / length) * 1000)));
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
    const frame = target.closest(".frame");
    if (frame) return goTo(frame.dataset.clip, Number(frame.dataset.at));
    const tab = target.closest(".clip-tab");
    if (tab) return bringToFront(tab.dataset.clip);
    const sound = target.closest(".sound");
    if (sound) {
      const box = sound.getBoundingClientRect();
      const length = Number(clipOf(sound.dataset.clip).dataset.duration);
      return goTo(sound.dataset.clip, Math.max(0, (event.clientX - box.left) / box.width) * length);
    }
    const example = target.closest(".example");
    if (example) document.getElementById(example.dataset.example)?.click();
  }, true);

  document.addEventListener("keydown", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    if (event.key === "Escape" && target.closest("#question"))
      document.querySelector("#question .stop-button")?.click();
    const tab = target.closest(".clip-tab");
    if (tab && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      const next = event.key === "ArrowRight" ? tab.nextElementSibling : tab.previousElementSibling;
      if (next) {
        next.focus();
        bringToFront(next.dataset.clip);
      }
    }
    const frame = target.closest(".frame");
    if (frame && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      event.preventDefault();
      const next = event.key === "ArrowRight" ? frame.nextElementSibling : frame.previousElementSibling;
      next?.focus();
    }
  });

  // Gradio leaves these two without a name.
  const named = { "submit-button": "Ask", "stop-button": "Stop" };
  new MutationObserver(() => {
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
