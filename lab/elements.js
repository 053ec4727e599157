// Functions that the modules of the panels share. `in_page("elements.js", ...)` in panel.py puts this file before them.

/** make("button", {className: "key-s", onclick: save}, "PNG"): an element with properties and children. */
function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties))
    if (name in made && name !== "style") made[name] = value;
    else made.setAttribute(name, value);
  made.append(...children.filter(child => child !== undefined && child !== null));
  return made;
}

/** A name that may break into two lines between its words. */
const words = name => name.split(/(?<=[a-z])(?=[A-Z])|(?<=_)/).flatMap(part => [part, make("wbr")]).slice(0, -1);
