import { describe, expect, it, vi } from 'vitest';
import { TokenStore, type SignIn } from '@/auth/tokens';
import { ApiClient, at } from './client';
import { ApiError } from './errors';

const USER = { id: 'u1', email: 'ada@example.com', name: 'Ada', emailVerified: true };

class MemoryStorage {
  readonly #items = new Map<string, string>();
  length = 0;
  clear = () => this.#items.clear();
  key = () => null;
  getItem = (key: string) => this.#items.get(key) ?? null;
  setItem = (key: string, value: string) => void this.#items.set(key, value);
  removeItem = (key: string) => void this.#items.delete(key);
}

/** Serves one tab or several: tokens by number, each refresh token good for one use. */
class Server {
  valid = 'access-1';
  refreshes: string[] = [];
  #number = 1;
  refuseRefresh = false;
  paths: string[] = [];
  gate: Promise<void> = Promise.resolve();

  fetch: typeof fetch = async (input, init) => {
    const path = input as string;
    this.paths.push(path);
    if (path === '/api/auth/refresh') {
      const { refreshToken } = JSON.parse(init?.body as string) as { refreshToken: string };
      this.refreshes.push(refreshToken);
      await this.gate;
      if (this.refuseRefresh || refreshToken !== `refresh-${this.#number}`) {
        return json(401, {
          success: false,
          error: 'Invalid or expired refresh token',
          code: 'INVALID_REFRESH_TOKEN',
        });
      }
      return json(200, { success: true, data: this.issue() });
    }
    const bearer = new Headers(init?.headers).get('Authorization');
    if (bearer !== `Bearer ${this.valid}`) {
      return json(401, { success: false, error: 'Unauthorized', code: 'TOKEN_EXPIRED' });
    }
    return json(200, { path });
  };

  issue(): SignIn {
    this.#number += 1;
    this.valid = `access-${this.#number}`;
    return { accessToken: this.valid, refreshToken: `refresh-${this.#number}`, user: USER };
  }
}

function json(status: number, body: unknown, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers });
}

/** One lock for all that share it, as the browser's is for its tabs. */
function sharedLock() {
  let last: Promise<unknown> = Promise.resolve();
  return <T>(run: () => Promise<T>): Promise<T> => {
    const mine = last.then(run, run);
    last = mine.catch(() => undefined);
    return mine;
  };
}

function setUp(server = new Server(), storage = new MemoryStorage(), exclusive = sharedLock()) {
  const tokens = new TokenStore(storage);
  const client = new ApiClient({ tokens, exclusive, fetch: server.fetch, now: () => 0 });
  return { server, storage, tokens, client, exclusive };
}

const OLD: SignIn = { accessToken: 'access-old', refreshToken: 'refresh-1', user: USER };

describe('the client', () => {
  it('refreshes once, however many requests are refused at once', async () => {
    const { server, tokens, client } = setUp();
    tokens.write(OLD);
    const paths = Array.from({ length: 20 }, (_, index) => `/api/things/${index}`);
    const answers = await Promise.all(paths.map((path) => client.get<{ path: string }>(path)));
    expect(answers.map((one) => one.path)).toEqual(paths);
    expect(server.refreshes).toEqual(['refresh-1']);
    expect(tokens.read()?.accessToken).toBe('access-2');
  });

  it('uses the tokens that another tab got while it waited for its turn', async () => {
    const first = setUp();
    const second = setUp(first.server, first.storage, first.exclusive);
    first.tokens.write(OLD);
    await Promise.all([first.client.get('/api/a'), second.client.get('/api/b')]);
    expect(first.server.refreshes).toEqual(['refresh-1']);
    expect(second.tokens.read()?.accessToken).toBe('access-2');
  });

  it('takes over the tokens of a tab that was faster, without locks too', async () => {
    const { server, tokens, client } = setUp();
    tokens.write(OLD);
    let open: () => void = () => undefined;
    server.gate = new Promise((resolve) => (open = resolve));
    const answer = client.get<{ path: string }>('/api/a');
    await vi.waitFor(() => expect(server.refreshes).toHaveLength(1));
    tokens.write(server.issue());
    open();
    expect(await answer).toEqual({ path: '/api/a' });
    expect(tokens.read()?.accessToken).toBe('access-2');
  });

  it('signs out when the refresh token is refused, and says so', async () => {
    const { server, tokens, client } = setUp();
    tokens.write(OLD);
    server.refuseRefresh = true;
    await expect(client.get('/api/a')).rejects.toMatchObject({ status: 401, code: 'SIGNED_OUT' });
    expect(tokens.read()).toBeNull();
  });

  it('stays signed in when a refresh does not get through', async () => {
    const { tokens } = setUp();
    tokens.write(OLD);
    const client = new ApiClient({
      tokens,
      exclusive: sharedLock(),
      now: () => 0,
      fetch: (input) =>
        input === '/api/auth/refresh'
          ? Promise.reject(new TypeError('Failed to fetch'))
          : Promise.resolve(json(401, { error: 'Unauthorized' })),
    });
    await expect(client.get('/api/a')).rejects.toMatchObject({ status: 0, code: 'NETWORK' });
    expect(tokens.read()).toEqual(OLD);
  });

  it('does not bring a sign-in back that was ended during a refresh', async () => {
    const { server, tokens, client } = setUp();
    tokens.write(OLD);
    let open: () => void = () => undefined;
    server.gate = new Promise((resolve) => (open = resolve));
    const answer = client.get('/api/a');
    await vi.waitFor(() => expect(server.refreshes).toHaveLength(1));
    tokens.write(null);
    open();
    await expect(answer).rejects.toMatchObject({ code: 'SIGNED_OUT' });
    expect(tokens.read()).toBeNull();
  });

  it('sends a request again only once', async () => {
    const { server, tokens, client } = setUp();
    tokens.write(OLD);
    server.fetch = (input) =>
      Promise.resolve(
        input === '/api/auth/refresh'
          ? json(200, { data: { accessToken: 'still-bad', refreshToken: 'r', user: USER } })
          : json(401, { error: 'Unauthorized', code: 'TOKEN_REVOKED' }),
      );
    const stubborn = new ApiClient({ tokens, exclusive: sharedLock(), fetch: server.fetch, now: () => 0 });
    await expect(stubborn.get('/api/a')).rejects.toMatchObject({ status: 401, code: 'TOKEN_REVOKED' });
    await expect(client.get('/api/a')).rejects.toBeInstanceOf(ApiError);
  });

  it('gives an access token that lasts, and refreshes one that ends soon', async () => {
    const { server, tokens, client } = setUp();
    const ending = (seconds: number) => `h.${btoa(JSON.stringify({ exp: seconds }))}.s`;
    tokens.write({ ...OLD, accessToken: ending(900) });
    expect(await client.accessToken(300)).toBe(ending(900));
    tokens.write({ ...OLD, accessToken: ending(200) });
    expect(await client.accessToken(300)).toBe('access-2');
    expect(server.refreshes).toEqual(['refresh-1']);
  });

  it('reads both forms of errors, and what has no form', async () => {
    const { tokens } = setUp();
    tokens.write(OLD);
    const answers = [
      json(
        429,
        { success: false, error: 'Too many', code: 'RATE_LIMITED', requestId: 'r1' },
        { 'Retry-After': '7' },
      ),
      json(409, {
        error: 'BRANCH_IN_USE',
        message: 'Branch x is in use',
        code: 'BRANCH_IN_USE',
        details: 'by y',
      }),
      new Response('<html>Bad gateway</html>', { status: 502 }),
    ];
    const client = new ApiClient({
      tokens,
      exclusive: sharedLock(),
      now: () => 0,
      fetch: () => Promise.resolve(answers.shift() ?? Response.error()),
    });
    await expect(client.get('/a')).rejects.toMatchObject({
      message: 'Too many',
      retryAfter: 7,
      requestId: 'r1',
    });
    await expect(client.get('/a')).rejects.toMatchObject({ message: 'Branch x is in use', details: 'by y' });
    await expect(client.get('/a')).rejects.toMatchObject({ status: 502, code: 'HTTP_502' });
  });

  it('keeps a slash within one segment of a path', () => {
    expect(at('/api/x/{env}/{branch}', 'e', 'feature/a b')).toBe('/api/x/e/feature%2Fa%20b');
  });
});
