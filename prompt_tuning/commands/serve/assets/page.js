"use strict";
// What the server and the reader say comes into the page as text (`textContent`), never as HTML.
const $ = (id) => document.getElementById(id);
// A browser opens six connections to a server; each example takes up to two.
const AT_ONCE = 3;
// Milliseconds between looks at which prompts there are.
const REFRESH = 5000;

let asking = null;
let lookingUp = null;
let unlocked = true;

async function call(path, options = {}) {
  const key = $("key").value.trim();
  const response = await fetch(path, {
    ...options,
    cache: "no-store",
    credentials: "omit",
    headers: { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) },
  });
  if (response.ok) return response;
  if (response.status === 401) {
    unlocked = false;
    $("key-field").hidden = false;
  }
  const said = await response.json().catch(() => null);
  throw new Error(said?.error?.message ?? `The server answered ${response.status} ${response.statusText}.`);
}

const post = (path, content, signal) => call(path, { method: "POST", body: JSON.stringify(content), signal });

// The objects of a stream of server-sent events, as OpenAI's completions send them: one line each, `[DONE]` at the end.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The server ended the answer before it was whole.");
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

async function refresh() {
  try {
    const { data } = await (await call("v1/models")).json();
    // Prompts first: what belongs to no other is the bare model.
    const names = data.toSorted((a, b) => !a.parent - !b.parent).map((model) => model.id);
    unlocked = true;
    const [chosen, listed] = [$("model").value, new Map()];
    for (const option of $("model").options) listed.set(option.value, option);
    // Options that stay are left alone, so that a list that is open stays open.
    for (const name of names) if (!listed.delete(name)) $("model").add(new Option(name, name));
    for (const gone of listed.values()) gone.remove();
    const left = listed.has(chosen) ? `${chosen} was unloaded, and ${$("model").value} is chosen. ` : "";
    say("state", `${left}Ready: ${names.length} to choose from.`);
    if ($("model").value !== chosen) await lookUp();
  } catch (error) {
    say("state", sentence(error));
  }
}

async function ask() {
  const split = new FormData($("ask")).get("split") === "block" ? /\n\s*\n/ : "\n";
  const texts = $("examples").value.split(split).map((text) => text.trim()).filter(Boolean);
  const labels = $("labels").value.split(",").map((label) => label.trim()).filter(Boolean);
  if (!texts.length || !$("model").value) return;
  stop();
  const run = (asking = new AbortController());
  const request = { model: $("model").value, max_tokens: Number($("longest").value) || undefined };
  $("stop").disabled = false;
  $("answers").replaceChildren();
  const cards = texts.map(addCard);
  let [done, failed] = [0, 0];
  const tell = (end) => {
    // Another run may have begun, and has the page.
    if (asking === run) say("progress", `${done} of ${count(texts.length, "example")} answered by ${request.model}${end}`);
  };
  tell(" …");
  const lane = async () => {
    for (let card; (card = cards.shift()); ) {
      try {
        await answer(card, request, labels, run.signal);
        done++;
      } catch (error) {
        failed++;
        show(card.querySelector(".warning"), run.signal.aborted ? "Stopped." : sentence(error));
      }
      card.removeAttribute("aria-busy");
      tell(" …");
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  if (asking === run) $("stop").disabled = true;
  tell(run.signal.aborted ? ", then stopped." : failed ? `, ${failed} not.` : ".");
}

function stop() {
  asking?.abort();
}

function addCard(text) {
  const card = $("answer").content.firstElementChild.cloneNode(true);
  card.querySelector("blockquote").textContent = text;
  card.dataset.text = text;
  card.setAttribute("aria-busy", "true");
  $("answers").append(card);
  return card;
}

async function answer(card, request, labels, signal) {
  const began = performance.now();
  const times = { first: null, whole: null, scored: null };
  const tell = () => {
    const parts = [
      ["first token", times.first],
      ["whole answer", times.whole],
      ["probabilities", times.scored],
    ].filter(([, time]) => time !== null);
    card.querySelector(".times").textContent = parts.map(([what, time]) => `${what} ${milliseconds(time)}`).join(" · ");
  };
  const generate = async () => {
    const content = { ...request, prompt: card.dataset.text, stream: true };
    const generated = card.querySelector(".generated");
    for await (const event of eventsOf(await post("v1/completions", content, signal))) {
      const choice = event.choices?.[0];
      if (!choice) continue;
      times.first ??= performance.now() - began;
      generated.append(choice.text);
      if (choice.finish_reason === "length") generated.append(element("span", "cut", " … cut here"));
      tell();
    }
    times.whole = performance.now() - began;
    if (!generated.textContent) generated.append(element("span", "cut", "an empty answer"));
    tell();
  };
  const score = async () => {
    if (!labels.length) return;
    const content = { model: request.model, prompt: card.dataset.text, labels };
    const { data } = await (await post("v1/score", content, signal)).json();
    times.scored = performance.now() - began;
    showLabels(card.querySelector(".labels"), data[0].scores);
    tell();
  };
  const results = await Promise.allSettled([generate(), score()]);
  const wrong = results.find((result) => result.status === "rejected");
  if (wrong) throw wrong.reason;
}

// Likeliest first; of all labels one is right, so that their probabilities add up to 1.
function showLabels(list, scores) {
  const rows = scores.toSorted((a, b) => b.probability - a.probability).map(({ label, probability }) => {
    const row = element("li", "", "");
    row.style.setProperty("--share", probability);
    row.append(element("span", "label", label), element("span", "num", `${(100 * probability).toFixed(1)} %`));
    return row;
  });
  list.replaceChildren(...rows);
}

async function lookUp() {
  lookingUp?.abort();
  const name = $("model").value;
  if (!$("words").open || !name) return;
  const run = (lookingUp = new AbortController());
  const body = $("words").querySelector("tbody");
  body.replaceChildren();
  say("words-state", `Looking for the words of ${name} …`);
  try {
    const path = `v1/prompts/${encodeURIComponent(name)}/neighbours`;
    const { rows } = await (await call(path, { signal: run.signal })).json();
    for (const row of rows) {
      const words = element("td", "", "");
      for (const { token } of row.neighbours) words.append(element("span", "word", token));
      const line = body.insertRow();
      line.append(element("td", "num", row.row), element("td", "num", row.neighbours[0].distance.toFixed(3)), words);
    }
    say("words-state", `${name}: ${count(rows.length, "row")}.`);
  } catch (error) {
    if (!run.signal.aborted) say("words-state", sentence(error));
  }
}

function element(name, kind, text) {
  const made = document.createElement(name);
  made.className = kind;
  made.textContent = text;
  return made;
}

function show(place, text) {
  place.textContent = text;
  place.hidden = false;
}

function say(id, text) {
  // What is said anew is read out again, so nothing is said twice.
  if ($(id).textContent !== text) $(id).textContent = text;
}

const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
const milliseconds = (time) => (time < 1000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(2)} s`);
const sentence = (error) => (error instanceof TypeError ? "The server cannot be reached." : error.message);

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("stop").addEventListener("click", stop);
$("model").addEventListener("change", lookUp);
$("words").addEventListener("toggle", lookUp);
$("key").addEventListener("change", refresh);
$("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
  // There is nothing to ask before the prompts are known.
  event.preventDefault();
  $("model").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("ask").requestSubmit();
  } else if (event.key === "Escape") stop();
});
setInterval(() => {
  if (!document.hidden && unlocked) refresh();
}, REFRESH);
refresh();
