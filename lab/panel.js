// Listens to the keys of a panel (`Page` in panel.py). It is invisible.
export default {
  render({model, el}) {
    whenThere(el, () => listen(el.closest(".ifttn"), model.get("title")));
  },
};
