/** Where a session's terminal is, and how the page says who is asking. */

import type { Position } from './protocol';

/** What the terminal needs of the page's sign-in. */
export type TerminalAuth = {
  /** Return an access token. With `renew` the last one was refused: get a new one. Null: signed out. */
  token(renew: boolean): Promise<string | null>;
};

export type TerminalPlace = { sessionId: string; environmentId: string };

/**
 * Return the address of one connection, or null when nobody is signed in.
 *
 * The only place that knows how a terminal's connection is authorised. Browsers cannot send a header
 * with a WebSocket, so the token is in the query; the server never logs it.
 */
export async function terminalUrl(
  place: TerminalPlace,
  position: Position,
  auth: TerminalAuth,
  renew: boolean,
): Promise<string | null> {
  const token = await auth.token(renew);
  if (token === null) return null;
  const url = new URL(`/api/terminal/ws/${encodeURIComponent(place.sessionId)}`, window.location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = new URLSearchParams({
    environmentId: place.environmentId,
    ...position.query,
    token,
  }).toString();
  return url.href;
}
