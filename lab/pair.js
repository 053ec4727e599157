// Side by side: when one player moves, the other moves to the same fraction of its clip.
export default {
  render({el}) {
    let moving = false;
    whenThere(el, () => el.closest(".ifttn").addEventListener("ifttn-frame", event => {
      if (moving) return;  // the event comes from the player that is being moved
      moving = true;
      for (const each of event.currentTarget.querySelectorAll(".ifttn-player"))
        if (each !== event.target) each.dispatchEvent(new CustomEvent("ifttn-go", {detail: event.detail}));
      moving = false;
    }));
  },
};
