// Takes a hidden frame from partner to partner, and never waits for one longer than the page says. One that gives no
// answer is left when its page has loaded.
"use strict";

(() => {
  const list = document.getElementById("progress");
  const frame = document.getElementById("frame");
  const finish = document.getElementById("finish");
  const partners = Array.from(list.children);
  const limit = Number(list.dataset.seconds) * 1000;
  const between = 1000;
  let current = -1;
  let since = 0;
  let loaded = -1;
  let over = false;

  const isFinal = (step) => step === "done" || step === "failed";
  const stepOf = (number) => partners[number].dataset.step;

  function show(number, step) {
    if (!isFinal(stepOf(number))) {
      partners[number].dataset.step = step;
    }
  }

  function end() {
    if (!over) {
      over = true;
      location.replace(finish.href);
    }
  }

  function next() {
    current = partners.findIndex((_, number) => number > current && !isFinal(stepOf(number)));
    if (current < 0) {
      end();
      return;
    }
    since = performance.now();
    show(current, "asked");
    frame.contentWindow.location.replace(`${list.dataset.path}/ask/${current}`); // leaves no trace for "back"
  }

  function goOn() {
    if (over) {
      return;
    }
    if (isFinal(stepOf(current))) {
      next();
    } else if (performance.now() - since > limit) {
      show(current, "failed");
      next();
    }
  }

  async function look() {
    if (over) {
      return;
    }
    try {
      const answer = await fetch(`${list.dataset.path}/state`, { cache: "no-store", signal: AbortSignal.timeout(limit) });
      if (answer.ok) {
        const state = await answer.json();
        if (state.ended) {
          end();
          return;
        }
        state.partners.forEach((step, number) => isFinal(step) && show(number, step));
        if (loaded === current && "silent" in partners[current].dataset && state.partners[current] === "asked") {
          show(current, "failed");
        }
      }
    } catch {
      // our own server did not answer this time: the time limit goes on by itself
    }
    goOn();
  }

  document.documentElement.classList.add("scripted");
  frame.addEventListener("load", () => {
    loaded = current;
    look();
  });
  setInterval(look, between);
  setInterval(goOn, between / 4);
  next();
})();
