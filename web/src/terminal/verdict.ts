/** What the end of a terminal's connection means: go on, sign in anew, or stop. Without any socket. */

const ENDED = 1000;
export const LOST = 1006;
const POLICY = 1008;
const TOO_BIG = 1009;
const TRY_LATER = 1013;

const MAX_SIGN_IN_TRIES = 3;
/** A connection that lived this long was a good one: waiting starts from the beginning again. */
const LONG_ENOUGH_MS = 5000;
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8000;
const LATER_MS = 3000;

export type Verdict =
  | { next: 'reconnect'; waitMs: number; reason: string }
  | { next: 'sign-in' }
  | { next: 'signed-out' }
  | { next: 'refused'; reason: string; final: boolean }
  | { next: 'ended' };

/** Judges one end of a connection after another; `spread` returns a number in [0, 1). */
export class Judge {
  private tries = 0;
  private signInTries = 0;
  private ready = false;

  constructor(private readonly spread: () => number) {}

  /** Note that the server attached us. */
  attached(): void {
    this.ready = true;
    this.signInTries = 0;
  }

  /** Begin waiting from the shortest time again: something changed that makes a new try hopeful. */
  hope(): void {
    this.tries = 0;
  }

  /** Say what follows the close code and reason of a connection that lived so long. */
  judge(code: number, reason: string, livedMs: number): Verdict {
    // A line that was cut is tried again at once; a server that says no, ever more rarely.
    if (livedMs >= LONG_ENOUGH_MS || (this.ready && code === LOST)) this.tries = 0;
    this.ready = false;
    if (code === ENDED) return { next: 'ended' };
    if (code === POLICY) return this.refused(reason);
    if (code === TOO_BIG) {
      return { next: 'refused', reason: reason || 'The server found a message too big', final: false };
    }
    this.tries += 1;
    const waitMs = Math.max(this.waitMs(), code === TRY_LATER ? LATER_MS : 0);
    return { next: 'reconnect', waitMs, reason: code === LOST ? '' : reason };
  }

  private refused(reason: string): Verdict {
    if (/authentication/i.test(reason)) {
      this.signInTries += 1;
      return { next: this.signInTries < MAX_SIGN_IN_TRIES ? 'sign-in' : 'signed-out' };
    }
    const said = reason || 'The server refused the terminal';
    return { next: 'refused', reason: said, final: /not found|not allowed|required/i.test(said) };
  }

  private waitMs(): number {
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.max(this.tries - 1, 0));
    return Math.round(longest * (0.75 + 0.25 * this.spread()));
  }
}
