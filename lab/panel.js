// What every panel has in the page (`Page` in panel.py): its keys. It shows nothing itself.
export default {
  render({model, el}) {
    whenThere(el, () => listen(el.closest(".ifttn"), model.get("title")));
  },
};
