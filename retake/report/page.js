"use strict";
// One hidden video holds every view as a tile; this script seeks it, and draws tiles of it onto one canvas.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { fps, frames, layers, columns } = data;
  const [tileWidth, tileHeight] = data.tile;
  const video = $("proxy"), canvas = $("view"), context = canvas.getContext("2d", { alpha: false });
  const last = frames - 1;
  const rows = Math.ceil(layers.length / columns);
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // --- which frame is on screen -------------------------------------------------------------------------
  let shown = -1; // the frame on the canvas
  let aim = 0; // the frame asked for last; steps count from here, so that a held key never falls behind
  let asked = null; // the frame that the video is seeking
  let queued = null; // the frame to seek next: only the newest wish is kept
  let ahead = -1; // a frame that was presented while the seek was not over yet
  let seen = -1; // the frame that was presented last, where the browser says so
  let waiting = [];
  const exact = "requestVideoFrameCallback" in HTMLVideoElement.prototype;

  const middle = (n) => (n + 0.5) / fps;

  function seek(n) {
    aim = clamp(Math.round(Number(n) || 0), 0, last);
    queued = aim;
    return new Promise((done) => {
      waiting.push(done);
      pump();
    });
  }

  function pump() {
    if (asked !== null || queued === null || video.readyState < 1) return;
    asked = queued;
    queued = null;
    ahead = -1;
    if (asked === shown && Math.abs(video.currentTime - middle(asked)) < 0.25 / fps) arrive(asked);
    else video.currentTime = middle(asked);
  }

  function arrive(n) {
    asked = null;
    show(n);
    if (queued !== null) return pump();
    for (const done of waiting.splice(0)) done(n);
    for (const later of [250, 1000, 4000]) setTimeout(() => again(n), later);
  }

  /** A busy browser may end a seek before the element can be drawn, or present nothing at all: looks once more. */
  function again(n) {
    if (asked !== null || shown !== n || !video.paused) return;
    if (exact && seen !== n) video.currentTime = middle(n) + 0.1 / fps; // a seek to the same time would be none
    draw();
  }

  // A seek is over when the frame was presented and the element can be drawn again; either comes first.
  video.addEventListener("seeked", () => {
    const target = asked;
    if (target === null) return;
    if (!exact || ahead === target) return arrive(target);
    // A browser that presents no new frame after a seek has been inside the right one all along.
    setTimeout(() => asked === target && !video.seeking && arrive(target), 250);
  });

  function presented(now, frame) {
    video.requestVideoFrameCallback(presented);
    const n = (seen = clamp(Math.round(frame.mediaTime * fps), 0, last));
    if (asked === null) show(n);
    else if (n === asked && !video.seeking) arrive(n);
    else ahead = n;
  }

  function poll() {
    if (asked === null) show(clamp(Math.floor(video.currentTime * fps + 1e-3), 0, last));
    if (!video.paused) requestAnimationFrame(poll);
  }

  function show(n) {
    shown = n;
    if (!video.paused) aim = n;
    draw();
    describe();
  }

  function play() {
    if (!video.loop && shown === last) seek(0);
    return video.play();
  }

  function pause() {
    if (video.paused) return Promise.resolve(shown);
    video.pause();
    return seek(shown); // the decoder may be a frame ahead of the screen: come back to what was seen
  }

  const toggle = () => (video.paused ? play() : pause());
  const step = (by) => {
    if (!video.paused) video.pause();
    return seek(aim + by);
  };

  // --- what is on screen --------------------------------------------------------------------------------
  const names = { wipe: "Wipe", blend: "Mix", difference: "Gain" };
  const modes = { wipe: "Wipe", side: "Side by side", blend: "Blend", difference: "Difference", all: "All" };
  const amounts = { wipe: 50, blend: 50, difference: 50 };
  const at = (name, otherwise) => (layers.includes(name) ? layers.indexOf(name) : otherwise);
  let mode = layers.length > 1 ? "wipe" : "single";
  let left = at("source", 0);
  let right = at(data.show || "result", layers.length > 1 ? (left === 0 ? 1 : 0) : 0);

  const doublings = () => Math.round(amounts.difference / 25);

  /** The views of the current mode as [layer, column, row]. */
  function cells() {
    if (mode === "all") return layers.map((_, i) => [i, i % columns, Math.floor(i / columns)]);
    if (mode !== "side") return [[left, 0, 0]];
    const stacked = data.frameSize[0] > data.frameSize[1] && window.innerWidth < 700;
    return stacked ? [[left, 0, 0], [right, 0, 1]] : [[left, 0, 0], [right, 1, 0]];
  }

  function tile(layer, x, y, from = 0) {
    const sx = (layer % columns) * tileWidth, sy = Math.floor(layer / columns) * tileHeight;
    const width = tileWidth - from;
    if (width > 0) context.drawImage(video, sx + from, sy, width, tileHeight, x + from, y, width, tileHeight);
  }

  function draw() {
    if (video.readyState < 2) return;
    context.globalAlpha = 1;
    context.globalCompositeOperation = "source-over";
    for (const [layer, column, row] of cells()) tile(layer, column * tileWidth, row * tileHeight);
    if (mode === "wipe") tile(right, 0, 0, Math.round((tileWidth * amounts.wipe) / 100));
    if (mode === "blend") {
      context.globalAlpha = amounts.blend / 100;
      tile(right, 0, 0);
    }
    if (mode === "difference") {
      context.globalCompositeOperation = "difference";
      tile(right, 0, 0);
      context.globalCompositeOperation = "lighter";
      for (let i = 0; i < doublings(); i++) context.drawImage(canvas, 0, 0);
    }
  }

  function tag(text, x, y, alignRight) {
    const label = document.createElement("span");
    label.textContent = text;
    label.style.top = `${y}%`;
    label.style[alignRight ? "right" : "left"] = `${x}%`;
    $("tags").append(label);
  }

  /** Fits the canvas, the labels and the controls to the mode; needed whenever mode or layers change. */
  function arrange() {
    const placed = cells();
    const across = 1 + Math.max(...placed.map((cell) => cell[1]));
    const down = 1 + Math.max(...placed.map((cell) => cell[2]));
    canvas.width = across * tileWidth;
    canvas.height = down * tileHeight;
    const aspect = (across * data.frameSize[0]) / (down * data.frameSize[1]);
    $("frame").style.setProperty("--aspect", aspect.toFixed(5));
    $("frame").classList.toggle("coarse", Math.max(tileWidth, tileHeight) < 200);
    $("tags").replaceChildren();
    if (mode === "difference") tag(`|${layers[left]} − ${layers[right]}| ×${2 ** doublings()}`, 0, 0);
    else if (mode === "blend") tag(`${layers[left]} + ${layers[right]}`, 0, 0);
    else for (const [i, column, row] of placed) tag(layers[i], (100 * column) / across, (100 * row) / down);
    if (mode === "wipe") tag(layers[right], 0, 0, true);
    $("line").hidden = mode !== "wipe";
    $("frame").classList.toggle("wiping", mode === "wipe");
    $("line").style.left = `${amounts.wipe}%`;
    $("left").value = left;
    $("right").value = right;
    for (const id of ["left", "right", "swap"]) $(id).disabled = mode === "all";
    $("amountbox").hidden = !(mode in amounts);
    if (mode in amounts) {
      $("amountname").textContent = names[mode];
      $("amount").value = amounts[mode];
      $("amountvalue").textContent = mode === "difference" ? `×${2 ** doublings()}` : `${amounts[mode]} %`;
    }
    for (const input of document.querySelectorAll("#modes input")) input.checked = input.value === mode;
    canvas.setAttribute("aria-label", `Current frame: ${placed.map((cell) => layers[cell[0]]).join(", ")}`);
    draw();
  }

  function choose(change) {
    change();
    arrange();
  }

  function swap() {
    choose(() => ([left, right] = [right, left]));
  }

  function setAmount(value) {
    choose(() => (amounts[mode] = clamp(Math.round(value), 0, 100)));
  }

  // --- curves -------------------------------------------------------------------------------------------
  const place = (n) => (last > 0 ? (1000 * n) / last : 500);
  const figure = (value) => (value === null || value === undefined ? "none" : String(Number(value.toPrecision(4))));
  const curves = [];

  /** At most two points a pixel column: a long clip's curve keeps its peaks and stays quick. */
  function thin(values, buckets = 700) {
    const points = [];
    values.forEach((value, n) => points.push([n, value]));
    if (points.length <= 2 * buckets) return points;
    const size = points.length / buckets, kept = [];
    for (let b = 0; b < buckets; b++) {
      const part = points.slice(Math.floor(b * size), Math.floor((b + 1) * size));
      const real = part.filter((point) => point[1] !== null).sort((p, q) => p[1] - q[1]);
      if (real.length === 0) kept.push(part[0]);
      else kept.push(...[real[0], real[real.length - 1]].sort((p, q) => p[0] - q[0]));
    }
    return kept;
  }

  function svg(name, attributes, parent) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent.append(element);
    return element;
  }

  function span(name, text, parent) {
    const element = document.createElement("span");
    element.className = name;
    element.textContent = text;
    parent.append(element);
    return element;
  }

  function plot(box) {
    const name = box.dataset.curve, values = data.curves[name];
    const floor = data.curves[box.dataset.floor] ?? [];
    const real = [...values, ...floor].filter((value) => value !== null);
    if (real.length === 0) {
      span("none", "No frame has a value.", box);
      return;
    }
    const low = real.reduce((a, b) => Math.min(a, b)), high = real.reduce((a, b) => Math.max(a, b));
    const y = (value) => (high > low ? 94 - (88 * (value - low)) / (high - low) : 50);
    const art = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img" }, box);
    const versus = floor.length ? ", the source's dashed" : "";
    art.setAttribute("aria-label", `${name} per frame, ${figure(low)} to ${figure(high)}${versus}`);
    for (const [series, kind] of [[floor, "floor"], [values, "trace"]]) {
      const points = thin(series);
      let path = "", dots = "", pen = false;
      points.forEach(([n, value], i) => {
        if (value !== null) {
          const at = `${place(n).toFixed(1)} ${y(value).toFixed(1)}`;
          path += `${pen ? "L" : "M"}${at}${pen ? "" : "l0 0"}`;
          if (!pen && (points[i + 1]?.[1] ?? null) === null) dots += `M${at}l0 0`; // alone: no line reaches it
        }
        pen = value !== null;
      });
      if (path) svg("path", { d: path, class: kind }, art);
      if (dots) svg("path", { d: dots, class: `${kind} dots` }, art);
    }
    const cursor = svg("line", { y1: 0, y2: 100, class: "cursor" }, art);
    span("high", figure(high), box);
    span("low", figure(low), box);
    const value = span("now", "", box);
    const follow = (event) => {
      const bounds = art.getBoundingClientRect();
      if (!video.paused) video.pause();
      seek(((event.clientX - bounds.left) / bounds.width) * last);
    };
    drag(art, follow);
    curves.push({ cursor, value, values, floor });
  }

  // --- controls -----------------------------------------------------------------------------------------
  function describe() {
    const seconds = data.times.length ? data.times[shown] : shown / fps;
    $("clock").textContent = `${shown} / ${last}   ${seconds.toFixed(3)} s`;
    $("seek").value = shown;
    $("seek").setAttribute("aria-valuetext", `frame ${shown}, ${seconds.toFixed(2)} seconds`);
    for (const { cursor, value, values, floor } of curves) {
      cursor.setAttribute("x1", place(shown));
      cursor.setAttribute("x2", place(shown));
      value.textContent = figure(values[shown]) + (floor.length ? `  source ${figure(floor[shown])}` : "");
    }
  }

  function drag(element, follow) {
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      element.setPointerCapture(event.pointerId);
      follow(event);
    });
    element.addEventListener("pointermove", (event) => {
      if (element.hasPointerCapture(event.pointerId)) follow(event);
    });
  }

  function option(select, value, text) {
    const element = document.createElement("option");
    element.value = value;
    element.textContent = text;
    select.append(element);
  }

  function setUp() {
    for (const [name, text] of Object.entries(modes)) {
      const label = document.createElement("label"), input = document.createElement("input");
      Object.assign(input, { type: "radio", name: "mode", value: name });
      input.addEventListener("change", () => choose(() => (mode = name)));
      label.append(input, text);
      $("modes").append(label);
    }
    layers.forEach((name, i) => [$("left"), $("right")].forEach((select) => option(select, i, name)));
    $("bar").hidden = layers.length < 2;
    $("left").addEventListener("change", () => choose(() => (left = Number($("left").value))));
    $("right").addEventListener("change", () => choose(() => (right = Number($("right").value))));
    $("swap").addEventListener("click", swap);
    $("amount").addEventListener("input", () => setAmount($("amount").value));
    drag($("frame"), (event) => {
      const bounds = canvas.getBoundingClientRect();
      if (mode === "wipe") setAmount((100 * (event.clientX - bounds.left)) / bounds.width);
    });
    $("first").addEventListener("click", () => step(-frames));
    $("back").addEventListener("click", () => step(-1));
    $("play").addEventListener("click", toggle);
    $("forth").addEventListener("click", () => step(1));
    $("last").addEventListener("click", () => step(frames));
    $("seek").addEventListener("input", () => step(Number($("seek").value) - aim));
    for (const button of document.querySelectorAll("[data-frame]"))
      button.addEventListener("click", () => {
        video.pause();
        seek(Number(button.dataset.frame));
      });
    for (const { verdict, spans } of data.health)
      for (const [from, to] of spans) {
        const mark = document.createElement("i");
        mark.className = verdict;
        mark.style.left = `${place(from) / 10}%`;
        mark.style.width = `${(place(to) - place(from)) / 10}%`;
        $("marks").append(mark);
      }
    $("copy")?.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText($("command").textContent);
      } catch { // some browsers keep the clipboard from pages of a folder: select the text, and copy as people did
        getSelection().selectAllChildren($("command"));
        document.execCommand("copy");
      }
      $("copy").textContent = "Copied";
    });
    $("speed").addEventListener("change", () => (video.playbackRate = Number($("speed").value)));
    $("loop").addEventListener("change", () => (video.loop = $("loop").checked));
    video.loop = $("loop").checked;
    video.playbackRate = Number($("speed").value); // some browsers restore a form on reload
    for (const event of ["play", "pause", "ended"]) video.addEventListener(event, playing);
    window.addEventListener("resize", () => mode === "side" && arrange());
  }

  function playing() {
    $("play").classList.toggle("on", !video.paused);
    $("play").setAttribute("aria-label", video.paused ? "Play" : "Pause");
    if (!video.paused && !exact) requestAnimationFrame(poll);
    if (video.ended) seek(last);
  }

  // A control that was clicked gives the focus back, so that the arrow keys step frames again.
  let byPointer = false;
  document.addEventListener("pointerdown", () => (byPointer = true), true);
  document.addEventListener("change", (event) => byPointer && event.target.blur());

  const keys = {
    " ": toggle,
    ArrowLeft: (event) => step(event.shiftKey ? -10 : -1),
    ArrowRight: (event) => step(event.shiftKey ? 10 : 1),
    Home: () => step(-frames),
    End: () => step(frames),
    x: swap,
  };

  document.addEventListener("keydown", (event) => {
    byPointer = false;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const digit = /^Digit([1-9])$/.exec(event.code);
    if (digit && layers.length > 1 && digit[1] <= layers.length && mode !== "all") {
      return choose(() => (event.shiftKey ? (left = digit[1] - 1) : (right = digit[1] - 1)));
    }
    const own = event.target.closest?.("select, input:not(#seek), button, a, summary");
    if (own && (event.key === " " || (own.matches("select, input") && event.key !== "x"))) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || (act === swap && (layers.length < 2 || mode === "all"))) return;
    event.preventDefault();
    act(event);
  });

  // --- start --------------------------------------------------------------------------------------------
  function trouble() {
    $("trouble").hidden = false;
    $("trouble").textContent =
      "This browser cannot play the proxy video (H.264 in MP4). " +
      "If it is a separate file, layers.mp4 must lie beside this page.";
  }

  function start() {
    seek(0).then(() => (window.retake.ready = true));
  }

  window.retake = { frame: () => shown, frames, seek, play, pause, ready: false };
  setUp();
  document.querySelectorAll(".curve").forEach(plot);
  arrange();
  video.addEventListener("error", trouble);
  if (video.error) trouble();
  if (exact) video.requestVideoFrameCallback(presented);
  if (video.readyState >= 2) start();
  else video.addEventListener("loadeddata", start, { once: true });
})();
