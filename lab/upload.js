// The page's side of `Upload` in upload.py. It sends a part of a file when Python has the part before.
const PART = 1 << 19;  // bytes

export default {
  render({model, el}) {
    const input = make("input", {type: "file", accept: "video/*,.avi,.mkv,.mpg,.flv", hidden: true});
    const root = make("button", {className: "ifttn-drop", onclick: () => input.click()}, "choose a file, or drop it here");
    let file = null;
    const megabytes = count => (count / 1e6).toFixed(count < 1e7 ? 1 : 0);
    const send = async at => {
      root.textContent = `sending ${megabytes(at)} of ${megabytes(file.size)} MB`;
      try {
        model.send({name: file.name, at, size: file.size}, undefined, [await file.slice(at, at + PART).arrayBuffer()]);
      } catch {
        root.textContent = `${file.name} cannot be read: drop a file, not a folder`;
      }
    };
    const take = given => {
      if (!given) return;
      file = given;
      if (file.size <= 1e6 * model.get("most")) send(0);
      else root.textContent = `${file.name} has over ${model.get("most")} MB: type its path`;
    };
    input.onchange = () => {
      take(input.files[0]);
      input.value = "";  // the same file may be chosen again
    };
    for (const kind of ["dragover", "dragleave", "drop"]) root.addEventListener(kind, event => {
      event.preventDefault();
      event.stopPropagation();  // the notebook would open the file
      root.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
    model.on("msg:custom", ({at}) => at < file?.size ? send(at) : root.textContent = `${file?.name} is sent: drop another`);
    el.append(root, input);
  },
};
