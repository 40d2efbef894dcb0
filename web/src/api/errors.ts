/** What the server, or the way to it, said no with. `status` 0 means that there was no answer at all. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly code: string;
  readonly details: string | undefined;
  readonly requestId: string | undefined;
  /** Seconds after which trying again makes sense. */
  readonly retryAfter: number | undefined;
  /** The whole answer, for the fields that only some errors have. */
  readonly body: Readonly<Record<string, unknown>>;

  constructor(
    message: string,
    fields: {
      status: number;
      code: string;
      details?: string | undefined;
      requestId?: string | undefined;
      retryAfter?: number | undefined;
      body?: Readonly<Record<string, unknown>>;
    },
  ) {
    super(message);
    this.status = fields.status;
    this.code = fields.code;
    this.details = fields.details;
    this.requestId = fields.requestId;
    this.retryAfter = fields.retryAfter;
    this.body = fields.body ?? {};
  }

  get offline(): boolean {
    return this.status === 0;
  }
}

export const NETWORK = 'NETWORK';
export const TIMEOUT = 'TIMEOUT';
export const SIGNED_OUT = 'SIGNED_OUT';
const CODE = /^[A-Z][A-Z0-9_]+$/u;
const MAX_TEXT = 2_000;

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value.slice(0, MAX_TEXT) : undefined;
}

/** Reads an error's body. Some have the sentence in `error`, some a code there and the sentence in `message`. */
export function errorFrom(status: number, body: unknown, retryAfter: string | null): ApiError {
  const fields =
    typeof body === 'object' && body !== null && !Array.isArray(body)
      ? (body as Record<string, unknown>)
      : {};
  const error = text(fields.error);
  const isCode = error !== undefined && CODE.test(error);
  const sentence = isCode || fields.statusCode !== undefined ? (text(fields.message) ?? error) : error;
  const seconds = retryAfter === null ? NaN : Number(retryAfter);
  return new ApiError(sentence ?? `The server answered ${status}.`, {
    status,
    code: text(fields.code) ?? (isCode ? error : `HTTP_${status}`),
    details: text(fields.details),
    requestId: text(fields.requestId),
    retryAfter: Number.isFinite(seconds) && seconds >= 0 ? seconds : undefined,
    body: fields,
  });
}

export type Explanation = {
  reason: string;
  details?: string | undefined;
  requestId?: string | undefined;
  offline: boolean;
};

/** Says an error in words for a person. */
export function explain(error: unknown): Explanation {
  if (error instanceof ApiError) {
    const wait =
      error.status === 429 && error.retryAfter !== undefined
        ? ` Try again in ${Math.max(1, Math.ceil(error.retryAfter))} s.`
        : '';
    return {
      reason: sentence(error.message) + wait,
      details: error.details === error.message ? undefined : error.details,
      requestId: error.requestId,
      offline: error.offline,
    };
  }
  return { reason: 'The page met a fault of its own.', details: text(String(error)), offline: false };
}

/** Ends a message as a sentence does. */
export function sentence(message: string): string {
  const trimmed = message.trim();
  return /[.!?…]$/u.test(trimmed) ? trimmed : `${trimmed}.`;
}
