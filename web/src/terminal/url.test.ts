import { afterEach, describe, expect, it, vi } from 'vitest';
import { Position } from './protocol';
import { terminalUrl, type TerminalAuth } from './url';

const place = { sessionId: 'session/1', environmentId: 'environment-1' };

function server(...answers: (Response | Error)[]) {
  const fetched = vi.fn<(path: string, request: RequestInit) => Promise<Response>>(() => {
    const answer = answers.shift();
    return answer instanceof Response
      ? Promise.resolve(answer)
      : Promise.reject(answer ?? new Error('too many'));
  });
  vi.stubGlobal('fetch', fetched);
  return fetched;
}

const json = (status: number, body: unknown) => new Response(JSON.stringify(body), { status });
const signedIn = (): TerminalAuth & { asked: boolean[] } => {
  const asked: boolean[] = [];
  return { asked, token: (renew) => Promise.resolve(`token-${String(asked.push(renew))}`) };
};

afterEach(() => vi.unstubAllGlobals());

describe('the address of a terminal', () => {
  it('carries a ticket, and never the token that the ticket was got with', async () => {
    const fetched = server(json(200, { ticket: 'ticket-1', expiresInMs: 30000 }));

    const url = new URL((await terminalUrl(place, new Position(), signedIn(), false)) ?? '');

    expect(url.pathname).toBe('/api/terminal/ws/session%2F1');
    expect(url.protocol).toMatch(/^wss?:$/);
    expect(Object.fromEntries(url.searchParams)).toMatchObject({
      environmentId: 'environment-1',
      ticket: 'ticket-1',
    });
    expect(url.href).not.toContain('token-');
    const [path, request] = fetched.mock.calls[0] ?? [];
    expect(path).toBe('/api/terminal/ticket');
    expect(request?.headers).toMatchObject({ Authorization: 'Bearer token-1' });
    expect(request?.body).toBe('{"sessionId":"session/1"}');
  });

  it('is got with a new token when the first one is refused', async () => {
    const auth = signedIn();
    const fetched = server(json(401, {}), json(200, { ticket: 'ticket-2' }));

    const url = await terminalUrl(place, new Position(), auth, false);

    expect(url).toContain('ticket=ticket-2');
    expect(auth.asked).toEqual([false, true]);
    expect(fetched).toHaveBeenCalledTimes(2);
  });

  it('is nowhere for somebody who is signed out, before or after the server says so', async () => {
    server(json(401, {}), json(401, {}));

    expect(await terminalUrl(place, new Position(), signedIn(), false)).toBeNull();
    expect(
      await terminalUrl(place, new Position(), { token: () => Promise.resolve(null) }, false),
    ).toBeNull();
  });

  it('leaves it to the terminal to say that a session is gone', async () => {
    server(json(404, { error: 'Session not found' }));

    expect(await terminalUrl(place, new Position(), signedIn(), false)).toContain('token=token-1');
  });

  it.each([json(503, {}), json(429, {}), new TypeError('no network')])(
    'is tried again later when the server cannot make a ticket now (%#)',
    async (answer) => {
      server(answer);

      await expect(terminalUrl(place, new Position(), signedIn(), false)).rejects.toThrow();
    },
  );
});
