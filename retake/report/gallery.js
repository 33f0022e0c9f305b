"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { cards, metrics } = JSON.parse($("data").textContent);
  const text = (tag, className, words) => {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = words;
    return made;
  };

  function clip(card, how) {
    const made = document.createElement("video");
    Object.assign(made, { muted: true, loop: true, playsInline: true, ...how, src: card.video });
    made.setAttribute("aria-hidden", "true");
    return made;
  }

  // The result plays while the pointer is on a card, or the keyboard's focus.
  function plays(box, shown, card) {
    let playing = null;
    const start = () => {
      if (playing) return;
      playing = clip(card, { className: "playing" });
      shown.append(playing);
      playing.play().catch(() => {});
    };
    const stop = () => {
      playing?.remove();
      playing = null;
    };
    for (const event of ["pointerenter", "focus"]) box.addEventListener(event, start);
    for (const event of ["pointerleave", "blur"]) box.addEventListener(event, stop);
  }

  // Every card is made once; filters hide, sorting moves.
  for (const card of cards) {
    const box = document.createElement(card.report ? "a" : "div");
    box.className = "card";
    if (card.report) box.href = card.report;
    if (card.picture || card.video) {
      const shown = document.createElement("div");
      shown.className = "shown";
      if (card.picture) {
        const image = document.createElement("img");
        Object.assign(image, { loading: "lazy", decoding: "async", src: card.picture });
        image.alt = `${card.clip}: the middle frame before and after ${card.edit}`;
        shown.append(image);
      } else shown.append(clip(card, { preload: "metadata" }));
      box.append(shown);
      if (card.video) plays(box, shown, card);
    }
    const words = text("div", "text", "");
    const first = text("div", "line", ""), second = text("div", "line soft", "");
    first.append(text("b", "", card.clip), text("span", card.state, card.state));
    card.value = text("span", "", "");
    second.append(text("span", "", card.edit), card.value);
    words.append(first, second);
    const doubtful = card.health === "look" || card.health === "wrong" ? ` ${card.health}` : "";
    if (card.reason) words.append(Object.assign(text("div", `reason${doubtful}`, card.reason), { title: card.reason }));
    box.append(words);
    card.box = box;
    card.words = `${card.clip} ${card.edit} ${card.reason}`.toLowerCase();
  }

  const option = (select, value, words) => select.append(new Option(words, value));
  for (const name of new Set(cards.map((card) => card.edit))) option($("edit"), name, name);
  for (const name of Object.keys(metrics)) option($("sort"), name, name);
  const counts = {};
  for (const card of cards) counts[card.state] = (counts[card.state] || 0) + 1;
  for (const [state, count] of Object.entries(counts)) {
    const label = text("label", state, ""), box = document.createElement("input");
    Object.assign(box, { type: "checkbox", checked: true, value: state });
    label.append(box, ` ${count} ${state}`);
    $("states").append(label);
  }

  const of = (card, by) => (by === "seconds" ? card.seconds || undefined : card.scores[by]);

  function show() {
    const find = $("find").value.trim().toLowerCase(), edit = $("edit").value, by = $("sort").value;
    const states = new Set([...$("states").querySelectorAll(":checked")].map((box) => box.value));
    const sign = $("down").checked ? -1 : 1;
    const order = [...cards];
    const last = (card) => (of(card, by) === undefined ? 1 : 0); // what has no value comes last, either way
    if (by) order.sort((a, b) => last(a) - last(b) || sign * (of(a, by) - of(b, by)));
    else if (sign < 0) order.reverse();
    let count = 0;
    for (const card of order) {
      const fits = states.has(card.state) && (!edit || card.edit === edit) && card.words.includes(find);
      card.box.hidden = !fits;
      count += fits;
      const value = by ? of(card, by) : undefined;
      card.value.textContent = value === undefined ? "" : `${by} ${+value.toPrecision(4)}`;
    }
    $("cards").append(...order.map((card) => card.box));
    $("count").textContent = count === cards.length ? `${count} edits` : `${count} of ${cards.length} edits`;
    $("none").hidden = count > 0;
    const [what, better] = metrics[by] || ["", ""];
    $("about").textContent = what && (better ? `${what}; ${better} is better` : what);
  }

  $("controls").addEventListener("input", show);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  show();
  addEventListener("pageshow", show); // also of what the browser put back into the form on the way back from a report
})();
