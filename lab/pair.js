// Side by side: the frame that one player shows, the other shows too, at the same share of its clip.
export default {
  render({el}) {
    let moving = false;
    whenThere(el, () => el.closest(".ifttn").addEventListener("ifttn-frame", event => {
      if (moving) return;  // it is the other player's, which this one moved
      moving = true;
      for (const each of event.currentTarget.querySelectorAll(".ifttn-player"))
        if (each !== event.target) each.dispatchEvent(new CustomEvent("ifttn-go", {detail: event.detail}));
      moving = false;
    }));
  },
};
