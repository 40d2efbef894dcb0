export type ServerSentEvent = { id: string | undefined; type: string; data: string };

const MAX_BUFFERED = 1_000_000;

/** An event stream sent more without a line's or an event's end than is taken. */
export class StreamTooLarge extends Error {}

/**
 * Takes an event stream's text in pieces cut anywhere, and gives the events as they become whole,
 * by the rules of the HTML standard: CR, LF and CRLF end lines, one space after the colon is not
 * part of the value, an event without data is none. `retry` reports the server's wish in milliseconds.
 */
export class EventStreamParser {
  readonly #onRetry: ((ms: number) => void) | undefined;
  #text = '';
  #start = true;
  #data: string[] = [];
  #size = 0;
  #type = '';
  #id: string | undefined;

  constructor(onRetry?: (ms: number) => void) {
    this.#onRetry = onRetry;
  }

  push(piece: string): ServerSentEvent[] {
    this.#text += piece;
    if (this.#start && this.#text !== '') {
      this.#start = false;
      if (this.#text.startsWith('\uFEFF')) this.#text = this.#text.slice(1);
    }
    const events: ServerSentEvent[] = [];
    for (;;) {
      const end = /\r\n|\n|\r(?=[^])/u.exec(this.#text);
      if (end === null) break;
      const event = this.#line(this.#text.slice(0, end.index));
      this.#text = this.#text.slice(end.index + end[0].length);
      if (event) events.push(event);
    }
    if (this.#text.length + this.#size > MAX_BUFFERED) throw new StreamTooLarge();
    return events;
  }

  #line(line: string): ServerSentEvent | undefined {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return undefined;
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') {
      this.#data.push(value);
      this.#size += value.length;
    } else if (field === 'event') {
      this.#type = value;
    } else if (field === 'id' && !value.includes('\0')) {
      this.#id = value;
    } else if (field === 'retry' && /^\d{1,7}$/u.test(value)) {
      this.#onRetry?.(Number(value));
    }
    return undefined;
  }

  #dispatch(): ServerSentEvent | undefined {
    const event = { id: this.#id, type: this.#type || 'message', data: this.#data.join('\n') };
    const any = this.#data.length > 0;
    this.#data = [];
    this.#size = 0;
    this.#type = '';
    return any ? event : undefined;
  }
}
