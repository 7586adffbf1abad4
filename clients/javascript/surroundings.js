/**
 * What the page around a client tells: whether someone is watching, and that something
 * changed which makes it worth looking at the connection now. Outside a page: always watched,
 * and nothing changes.
 */
export class Surroundings {
  #window;
  #document;
  #onChange;

  /**
   * @param {EventTarget | null} window tells `online` and `offline`
   * @param {Document | null} document tells whether the page is visible
   * @param {(hint: "online" | "offline" | "visible") => void} onChange
   */
  constructor(window, document, onChange) {
    this.#window = window;
    this.#document = document;
    this.#onChange = onChange;
  }

  get watched() {
    return (this.#document?.visibilityState ?? "visible") === "visible";
  }

  watch() {
    this.#window?.addEventListener("online", this.#tell);
    this.#window?.addEventListener("offline", this.#tell);
    this.#document?.addEventListener("visibilitychange", this.#tell);
  }

  unwatch() {
    this.#window?.removeEventListener("online", this.#tell);
    this.#window?.removeEventListener("offline", this.#tell);
    this.#document?.removeEventListener("visibilitychange", this.#tell);
  }

  #tell = ({ type }) => {
    if (type !== "visibilitychange") this.#onChange(type);
    else if (this.watched) this.#onChange("visible");
  };
}
