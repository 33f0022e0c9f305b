"use strict";
// State: marks in the order they were made, {frame, object, box: [x0, y0, x1, y1]} or {frame, object, point: [x, y, label]}.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const [width, height] = data.size;
const COLOURS = ["#ff2fc8", "#00beff", "#ffd000", "#7dff5a", "#ff7a1a", "#b48cff", "#00e6b8", "#ff5a5a", "#c8e600"];
const SMALLEST = 4; // px, sides of a box that masks take
let marks = [];
let at = 0; // index of the frame that is shown
let drag = null;

const svg = $("marks");
svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
svg.setAttribute("preserveAspectRatio", "none");
$("stage").style.aspectRatio = `${width} / ${height}`;
$("stage").style.maxWidth = `calc(72vh * ${width / height})`;
if (width < 400) $("frame").className = "small";
$("slider").max = data.frames.length - 1;
for (let n = 1; n <= 9; n++) $("object").add(new Option(String(n), String(n)));

const object = () => Number($("object").value);
const first = () => (marks.length ? marks[0].frame : null);

function go(index) {
  at = Math.max(0, Math.min(data.frames.length - 1, index));
  $("slider").value = at;
  $("frame").src = data.frames[at][1];
  $("number").value = `frame ${data.frames[at][0]} of 0–${data.count - 1}`;
  draw();
}

// A place in source pixels; the edge of the picture counts.
function place(event) {
  const area = svg.getBoundingClientRect();
  const to = (value, from, size, most) => Math.max(0, Math.min(most, Math.round(((value - from) / size) * most)));
  return [to(event.clientX, area.left, area.width, width), to(event.clientY, area.top, area.height, height)];
}

const field = $("field");
field.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault();
  svg.focus({ preventScroll: true });
  field.setPointerCapture(event.pointerId);
  drag = { from: place(event), to: place(event), beside: event.shiftKey || event.altKey || $("beside").checked };
});
field.addEventListener("pointermove", (event) => {
  const [x, y] = place(event);
  $("at").textContent = `x ${x}, y ${y}`;
  if (!drag) return;
  drag.to = [x, y];
  draw();
});
field.addEventListener("pointerup", () => {
  if (!drag) return;
  const { from, to, beside } = drag;
  drag = null;
  const frame = data.frames[at][0];
  const box = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
  if (box[2] - box[0] >= SMALLEST && box[3] - box[1] >= SMALLEST) {
    marks = marks.filter((one) => !(one.box && one.frame === frame && one.object === object()));
    marks.push({ frame, object: object(), box });
  } else {
    const point = [Math.min(from[0], width - 1), Math.min(from[1], height - 1), beside ? 0 : 1];
    marks.push({ frame, object: object(), point });
  }
  said();
});
field.addEventListener("pointercancel", () => { drag = null; draw(); });

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  svg.append(made);
}

function rectangle(box, colour) {
  const [x, y] = box;
  const sides = { x, y, width: box[2] - x, height: box[3] - y };
  shape("rect", { ...sides, class: "under" });
  shape("rect", { ...sides, stroke: colour });
}

function draw() {
  svg.replaceChildren();
  const radius = 5 * (width / Math.max(1, svg.getBoundingClientRect().width));
  for (const one of marks.filter((mark) => mark.frame === data.frames[at][0])) {
    const colour = COLOURS[one.object - 1];
    if (one.box) rectangle(one.box, colour);
    else {
      const [x, y, label] = one.point;
      const look = label ? { fill: colour } : { class: "beside", stroke: colour };
      shape("circle", { cx: x + 0.5, cy: y + 0.5, r: radius, ...look });
    }
  }
  if (drag) {
    const { from, to } = drag;
    rectangle(
      [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])],
      COLOURS[object() - 1],
    );
  }
}

// What was marked of one object on one frame, as settings are written.
function prompt(frame, number) {
  const some = marks.filter((one) => one.frame === frame && one.object === number);
  const box = some.find((one) => one.box);
  const points = some.filter((one) => one.point).map((one) => `[${one.point}]`);
  return { box: box ? `[${box.box}]` : "", points: points.length ? `[${points}]` : "" };
}

const inside = (found) => Object.keys(found).filter((key) => found[key]).map((key) => `${key}: ${found[key]}`).join(", ");

function settings() {
  const frame = first();
  const numbers = [...new Set(marks.filter((one) => one.frame === frame).map((one) => one.object))].sort();
  const words = [];
  if (numbers.length === 1 && !marks.some((one) => one.object !== numbers[0])) {
    const found = prompt(frame, numbers[0]);
    if (found.box) words.push(`--box ${found.box.slice(1, -1)}`);
    if (found.points) words.push(`'masks.points=${found.points}'`);
  } else {
    words.push(`'masks.objects={${numbers.map((n) => `${n}: {${inside(prompt(frame, n))}}`).join(", ")}}'`);
  }
  if (frame) words.push(`masks.frame=${frame}`);
  const later = [...new Set(marks.map((one) => one.frame))].filter((one) => one !== frame).sort((a, b) => a - b);
  const corrections = [];
  for (const when of later) {
    for (const n of [...new Set(marks.filter((one) => one.frame === when).map((one) => one.object))].sort()) {
      const which = numbers.length === 1 ? "" : `object: ${n}, `;
      corrections.push(`{frame: ${when}, ${which}${inside(prompt(when, n))}}`);
    }
  }
  if (corrections.length) words.push(`'masks.corrections=[${corrections.join(", ")}]'`);
  return words;
}

function problem() {
  const strange = marks.find((one) => !marks.some((other) => other.frame === first() && other.object === one.object));
  if (strange) return `Object ${strange.object} has no mark on frame ${first()}, where the others are pointed at: mark it there.`;
  const begins = new Set(marks.filter((one) => one.frame === first()).map((one) => one.object));
  for (const n of begins) {
    const found = marks.filter((one) => one.frame === first() && one.object === n);
    if (!found.some((one) => one.box || one.point[2])) return `Object ${n} has no box and no point on it, only beside it.`;
  }
  return "";
}

function said() {
  draw();
  $("list").replaceChildren(
    ...marks.map((one, n) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = COLOURS[one.object - 1];
      const kind = one.box ? `box ${one.box.join(", ")}` : `point ${one.point[0]}, ${one.point[1]}${one.point[2] ? "" : " beside it"}`;
      const see = document.createElement("button");
      see.type = "button";
      see.textContent = `frame ${one.frame}`;
      see.addEventListener("click", () => go(data.frames.findIndex(([number]) => number === one.frame)));
      const drop = document.createElement("button");
      drop.type = "button";
      drop.textContent = "Remove";
      drop.setAttribute("aria-label", `Remove mark ${n + 1}`);
      drop.addEventListener("click", () => { marks.splice(n, 1); said(); });
      item.append(swatch, `object ${one.object}: ${kind}`, see, drop);
      return item;
    }),
  );
  const wrong = problem();
  $("problem").textContent = wrong;
  const told = marks.length && !wrong;
  $("command").textContent = told ? [data.command, ...settings(), "--until masks"].join(" ") : `${data.command} …`;
  $("copy").disabled = !told;
  $("undo").disabled = $("clear").disabled = !marks.length;
  $("copy").textContent = "Copy the command";
}

$("back").addEventListener("click", () => go(at - 1));
$("on").addEventListener("click", () => go(at + 1));
$("slider").addEventListener("input", (event) => go(Number(event.target.value)));
$("undo").addEventListener("click", () => { marks.pop(); said(); });
$("clear").addEventListener("click", () => { marks = []; said(); });
$("copy").addEventListener("click", async () => {
  const text = $("command").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // pages of a folder may not reach the clipboard: select the text, and copy as people did
    getSelection().selectAllChildren($("command"));
    document.execCommand("copy");
  }
  $("copy").textContent = "Copied";
});
addEventListener("keydown", (event) => {
  if (event.target.closest("select, input[type=range]")) return;
  if (event.key === "ArrowLeft") go(at - 1);
  else if (event.key === "ArrowRight") go(at + 1);
  else if (/^[1-9]$/.test(event.key)) $("object").value = event.key;
  else if (event.key === "z" && (event.ctrlKey || event.metaKey)) { marks.pop(); said(); }
  else return;
  event.preventDefault();
});
addEventListener("resize", draw);
go(0);
said();
