/**
 * Where a reader stands in a session's log, and whether a frame is the next one. Pure.
 *
 * Offsets run 1, 2, 3 … without holes inside one epoch, so one number is enough to drop what
 * comes twice and to see what is missing.
 */

/** @typedef {{epoch: string, offset: number}} Position */

export class Cursor {
  /** @param {Position | null} [position] null: nowhere yet */
  constructor(position = null) {
    /** @type {string | null} */
    this.epoch = position?.epoch ?? null;
    this.offset = position?.offset ?? 0;
  }

  /** @returns {Position | null} */
  get position() {
    return this.epoch === null ? null : { epoch: this.epoch, offset: this.offset };
  }

  /** Stands behind `offset` of `epoch`: the next event expected is the one after. */
  moveTo(epoch, offset) {
    this.epoch = epoch;
    this.offset = offset;
  }

  forget() {
    this.epoch = null;
    this.offset = 0;
  }

  /**
   * A joined frame stands for `from_offset` to `offset`. One of which we have a part cannot be
   * taken apart, and so counts as a hole: whoever asks again gets the rest alone.
   *
   * @param {{offset: number, from_offset?: number}} frame
   * @returns {"next" | "seen" | "hole"}
   */
  place({ offset, from_offset: first = offset }) {
    if (offset <= this.offset) return "seen";
    return first === this.offset + 1 ? "next" : "hole";
  }

  /** @param {{offset: number}} frame one that is `next` */
  advance({ offset }) {
    this.offset = offset;
  }
}
