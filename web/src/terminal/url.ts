/** Where a session's terminal is, and how the page says who is asking. */

import type { Position } from './protocol';

/** What the terminal needs of the page's sign-in. */
export type TerminalAuth = {
  /** Return an access token. With `renew` the last one was refused: get a new one. Null: signed out. */
  token(renew: boolean): Promise<string | null>;
};

export type TerminalPlace = { sessionId: string; environmentId: string };

const TICKETS = '/api/terminal/ticket';
const DEADLINE_MS = 15_000;

/**
 * Return the address of one connection, or null when nobody is signed in.
 *
 * The only place that knows how a terminal's connection is authorised. Browsers cannot send a header
 * with a WebSocket, and addresses get into logs: what is in this one works once, for some seconds.
 */
export async function terminalUrl(
  place: TerminalPlace,
  position: Position,
  auth: TerminalAuth,
  renew: boolean,
): Promise<string | null> {
  const proof = await proofFor(place.sessionId, auth, renew);
  if (proof === null) return null;
  const url = new URL(`/api/terminal/ws/${encodeURIComponent(place.sessionId)}`, window.location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = new URLSearchParams({
    environmentId: place.environmentId,
    ...position.query,
    ...proof,
  }).toString();
  return url.href;
}

/** Return what goes into the address; null when nobody is signed in. */
async function proofFor(
  sessionId: string,
  auth: TerminalAuth,
  renew: boolean,
): Promise<Record<string, string> | null> {
  const token = await auth.token(renew);
  if (token === null) return null;
  const answer = await askForTicket(sessionId, token);
  if (answer.ok) return { ticket: ((await answer.json()) as { ticket: string }).ticket };
  if (answer.status === 401) return renew ? null : await proofFor(sessionId, auth, true);
  if (answer.status === 429 || answer.status >= 500) throw new Error(`no ticket: ${String(answer.status)}`);
  // The session is gone, or there are no tickets. The terminal itself says so, in words for people.
  return { token };
}

async function askForTicket(sessionId: string, token: string): Promise<Response> {
  const given = new AbortController();
  const timer = window.setTimeout(() => given.abort(), DEADLINE_MS);
  try {
    return await fetch(TICKETS, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: JSON.stringify({ sessionId }),
      signal: given.signal,
    });
  } finally {
    window.clearTimeout(timer);
  }
}
