import { sayAtSignIn } from '@/auth/farewell';
import { exclusiveAcrossTabs, type Exclusive } from '@/auth/locks';
import { secondsLeft, tokens as pageTokens, type SignIn, type TokenStore } from '@/auth/tokens';
import { ApiError, errorFrom, NETWORK, SIGNED_OUT, TIMEOUT } from './errors';
import type { Tokens } from './types';

const DEADLINE_MS = 30_000;
const REFRESH_DEADLINE_MS = 20_000;

export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

export type RequestOptions = {
  query?: Query;
  body?: unknown;
  signal?: AbortSignal | undefined;
  /** How long the answer may take, in milliseconds. */
  deadlineMs?: number;
  /** Sent without a bearer token: logging in, registering. */
  anonymous?: boolean;
};

export type ClientParts = {
  tokens: TokenStore;
  exclusive: Exclusive;
  fetch: typeof fetch;
  now: () => number;
  /** Called when the server has ended the sign-in, before it is forgotten. */
  onEnd?: () => void;
};

/**
 * Speaks with the server. A request that is refused for its access token is sent once more after a
 * refresh; however many are refused at once, here and in other tabs, there is one refresh.
 */
export class ApiClient {
  readonly #parts: ClientParts;
  #refreshing: Promise<SignIn> | undefined;

  constructor(parts: ClientParts) {
    this.#parts = parts;
  }

  get = <T>(path: string, options?: RequestOptions) => this.request<T>('GET', path, options);
  post = <T>(path: string, options?: RequestOptions) => this.request<T>('POST', path, options);
  put = <T>(path: string, options?: RequestOptions) => this.request<T>('PUT', path, options);
  patch = <T>(path: string, options?: RequestOptions) => this.request<T>('PATCH', path, options);
  delete = <T>(path: string, options?: RequestOptions) => this.request<T>('DELETE', path, options);

  /** Sends one request and reads its JSON. Raises ApiError, or the caller's own abort. */
  async request<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    const response = await this.open(method, path, options);
    return (await readJson(response)) as T;
  }

  /** Sends one request and gives the answer unread, for streams; a refusal is raised as ApiError. */
  async open(method: string, path: string, options: RequestOptions & { headers?: HeadersInit } = {}) {
    if (options.anonymous === true) return await accepted(await this.#send(method, path, options, undefined));
    const used = this.#signIn().accessToken;
    const response = await this.#send(method, path, options, used);
    if (response.status !== 401) return await accepted(response);
    await response.body?.cancel();
    const renewed = await this.refresh(used);
    return await accepted(await this.#send(method, path, options, renewed.accessToken));
  }

  /** An access token that is good for a while, for what does not go through `request`: terminals. */
  async accessToken(minSeconds = 300): Promise<string> {
    const { accessToken } = this.#signIn();
    if (secondsLeft(accessToken, this.#parts.now()) >= minSeconds) return accessToken;
    return (await this.refresh(accessToken)).accessToken;
  }

  /** Gets new tokens, unless somebody has got newer ones than `refused` in the meantime. */
  async refresh(refused: string): Promise<SignIn> {
    const current = this.#signIn();
    if (current.accessToken !== refused) return current;
    this.#refreshing ??= this.#parts
      .exclusive(() => this.#refreshOnce(refused))
      .finally(() => {
        this.#refreshing = undefined;
      });
    return await this.#refreshing;
  }

  async #refreshOnce(refused: string): Promise<SignIn> {
    const { tokens } = this.#parts;
    const signIn = this.#signIn();
    if (signIn.accessToken !== refused) return signIn;
    const response = await this.#send(
      'POST',
      '/api/auth/refresh',
      { body: { refreshToken: signIn.refreshToken }, deadlineMs: REFRESH_DEADLINE_MS },
      undefined,
    );
    if (response.status === 401) {
      await response.body?.cancel();
      // Without locks another tab may have used the token a moment ago: then its tokens are ours too.
      const other = tokens.read();
      if (other !== null && other.refreshToken !== signIn.refreshToken) return other;
      if (other !== null) this.#parts.onEnd?.();
      tokens.write(null);
      throw signedOut();
    }
    const answer = (await readJson(await accepted(response))) as { data: Tokens };
    // Signed out, or in as somebody else, while the answer was under way: that stays.
    const now = tokens.read();
    if (now?.refreshToken !== signIn.refreshToken) {
      if (now === null) throw signedOut();
      return now;
    }
    tokens.write(answer.data);
    return answer.data;
  }

  #signIn(): SignIn {
    const signIn = this.#parts.tokens.read();
    if (signIn === null) throw signedOut();
    return signIn;
  }

  async #send(
    method: string,
    path: string,
    { query, body, signal, deadlineMs = DEADLINE_MS, headers }: RequestOptions & { headers?: HeadersInit },
    accessToken: string | undefined,
  ): Promise<Response> {
    const all = new Headers(headers);
    if (!all.has('Accept')) all.set('Accept', 'application/json');
    if (accessToken !== undefined) all.set('Authorization', `Bearer ${accessToken}`);
    if (body !== undefined) all.set('Content-Type', 'application/json');
    const deadline = Number.isFinite(deadlineMs) ? AbortSignal.timeout(deadlineMs) : undefined;
    const signals = [signal, deadline].filter((one) => one !== undefined);
    try {
      return await this.#parts.fetch(path + queryText(query), {
        method,
        headers: all,
        cache: 'no-store',
        credentials: 'omit',
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signals.length === 0 ? {} : { signal: AbortSignal.any(signals) }),
      });
    } catch (error) {
      if (signal?.aborted === true) throw error;
      if (deadline?.aborted === true) {
        throw new ApiError('The server did not answer in time', { status: 0, code: TIMEOUT });
      }
      throw new ApiError('The server cannot be reached', { status: 0, code: NETWORK });
    }
  }
}

function signedOut(): ApiError {
  return new ApiError('You are signed out', { status: 401, code: SIGNED_OUT });
}

async function accepted(response: Response): Promise<Response> {
  if (response.ok) return response;
  let body: unknown;
  try {
    body = JSON.parse(await response.text());
  } catch {
    body = undefined;
  }
  throw errorFrom(response.status, body, response.headers.get('Retry-After'));
}

async function readJson(response: Response): Promise<unknown> {
  let text: string;
  try {
    text = await response.text();
  } catch {
    throw new ApiError("The server's answer was cut short", { status: 0, code: NETWORK });
  }
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError("The server's answer was no JSON", { status: response.status, code: 'BAD_ANSWER' });
  }
}

function queryText(query: Query | undefined): string {
  const given = Object.entries(query ?? {}).flatMap(([key, value]) => {
    if (value === undefined) return [];
    return typeof value === 'object' ? value.map((one) => [key, one]) : [[key, String(value)]];
  });
  return given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`;
}

/** Fills a path's places, each as one segment: `at('/api/x/{id}', id)`; a slash in a value stays in it. */
export function at(pattern: string, ...values: string[]): string {
  let index = 0;
  return pattern.replace(/\{[^}]+\}/gu, () => encodeURIComponent(values[index++] ?? ''));
}

export const api = new ApiClient({
  tokens: pageTokens,
  exclusive: exclusiveAcrossTabs(),
  fetch: (...given) => window.fetch(...given),
  now: () => Date.now(),
  onEnd: () => sayAtSignIn('This sign-in has ended. Sign in again to go on.'),
});
