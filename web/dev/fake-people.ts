/** Sign-ins, tokens, the audit log and the administration of the fake server. `ada…` administers it. */
import { createHash, randomUUID } from 'node:crypto';
import type {
  AccessToken,
  AuditEvent,
  ForeignEvent,
  OpenInvitation,
  Person,
  SignInLine,
} from '../src/api/account';
import type { AccountCall } from './fake-accounts.ts';

type Answer = { status: number; body: unknown };
type Body = Record<string, unknown>;
type Kept = { signIns: SignInLine[]; tokens: AccessToken[]; events: AuditEvent[] };

const days = (count: number) => new Date(Date.now() - count * 86_400_000).toISOString();
const ok = (body: unknown): Answer => ({ status: 200, body });
const done = (message: string): Answer => ok({ success: true, message });
const text = (value: unknown) => (typeof value === 'string' ? value : '');
const refuse = (status: number, code: string, error: string): Answer => ({
  status,
  body: { success: false, error, code, requestId: randomUUID().slice(0, 8) },
});
const GONE = refuse(404, 'NOT_FOUND', 'Not found');
const isWrong = (value: unknown) => text(value).startsWith('wrong');

export const administers = (email: string) => email.startsWith('ada');

function event(seq: number, action: string, details: Body = {}, outcome = 'ok'): AuditEvent {
  return {
    seq,
    at: days((140 - seq) / 9),
    action,
    objectType: action.split('.')[0] ?? '',
    objectId: randomUUID(),
    outcome,
    requestId: randomUUID().slice(0, 8),
    details,
  };
}

const DEEDS: readonly [string, Body, string?][] = [
  ['account.login', { address: '192.0.2.17', device: 'Mozilla/5.0 Firefox/140.0' }],
  ['git.push', { branch: 'ada/checkout-redesign', commit: '9fceb02d', updates: ['refs/heads/x a b ok'] }],
  ['environment.rename', { from: 'shop', to: 'storefront' }],
  ['access_token.create', { name: 'nightly backup', scope: 'read', expires: '2027-02-24' }],
  ['account.change_password', { address: '192.0.2.17' }, 'refused'],
  ['variable.set', { name: 'NPM_TOKEN' }],
  ['git_host.put', { origin: 'https://git.lumen.example' }],
];

function manyEvents(count: number): AuditEvent[] {
  return Array.from({ length: count }, (_, index) => {
    const [action, details, outcome] = DEEDS[index % DEEDS.length] ?? ['account.login', {}];
    return event(count - index, action, details, outcome);
  });
}

const all = new Map<string, Kept>();

function keptFor(email: string): Kept {
  let kept = all.get(email);
  if (!kept) {
    const empty = email.startsWith('empty');
    const signIn = (device: string | null, address: string | null, ago: number, current = false) => ({
      id: randomUUID(),
      device,
      address,
      createdAt: days(ago * 10 + 1),
      lastUsedAt: days(ago),
      current,
    });
    const token = (name: string, scope: 'read' | 'write', left: number, used: number | null) => ({
      id: randomUUID(),
      name,
      scope,
      createdAt: days(60),
      expiresAt: days(-left),
      lastUsedAt: used === null ? null : days(used),
    });
    const firefox = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0';
    kept = {
      signIns: [
        signIn(firefox, '192.0.2.17', 0, true),
        ...(empty
          ? []
          : [
              signIn(
                'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1',
                '2001:db8::5',
                0.4,
              ),
              signIn('python-httpx/0.28.1', '198.51.100.4', 3),
              signIn(null, null, 25),
            ]),
      ],
      tokens: empty
        ? []
        : [
            token('nightly backup', 'read', 80, 0.3),
            token('deploy script', 'write', 4, 12),
            token('old laptop', 'write', -9, null),
          ],
      events: empty ? [] : manyEvents(130),
    };
    all.set(email, kept);
  }
  return kept;
}

function person(email: string, name: string, fields: Partial<Person> = {}): Person {
  return {
    id: randomUUID(),
    email,
    name,
    isAdmin: false,
    emailVerified: true,
    hasPassword: true,
    createdAt: days(200),
    lastLoginAt: days(1),
    disabledAt: null,
    ...fields,
  };
}

const people: Person[] = [
  person('grace@lumen.example', 'Grace Okafor', { isAdmin: true, lastLoginAt: days(0.2) }),
  person('linus@lumen.example', 'Linus Berg', { emailVerified: false }),
  person('mallory@lumen.example', 'Mallory Quist', { disabledAt: days(9), lastLoginAt: days(11) }),
  person('nora@lumen.example', 'Nora', { hasPassword: false, lastLoginAt: null, createdAt: days(0.1) }),
];
let invitations: OpenInvitation[] = [
  {
    id: randomUUID(),
    email: 'edsger@lumen.example',
    createdBy: null,
    createdAt: days(2),
    expiresAt: days(-5),
  },
  { id: randomUUID(), email: null, createdBy: randomUUID(), createdAt: days(6.9), expiresAt: days(-0.05) },
];

function everybody(call: AccountCall): Person[] {
  if (!people.some((one) => one.email === call.email)) {
    people.push(person(call.email, 'Ada Lindqvist', { id: call.userId, isAdmin: true }));
  }
  return people.toSorted((one, other) => one.email.localeCompare(other.email));
}

function linkFor(one: Person): Answer {
  const url = `http://localhost:5173/reset-password#token=${randomUUID().replaceAll('-', '').repeat(2)}`;
  return ok({ user: one, link: { url, expiresAt: days(-1 / 48) } });
}

function users(call: AccountCall, id: string, verb: string): Answer {
  const list = everybody(call);
  if (call.method === 'GET') {
    const after = call.query.get('after') ?? '';
    const limit = Number(call.query.get('limit') ?? 200);
    const page = list.filter((one) => one.email > after).slice(0, limit);
    return ok({ users: page, next: page.length === limit ? page.at(-1)?.email : null });
  }
  if (id === '') {
    const email = text(call.body.email).toLowerCase();
    if (list.some((one) => one.email === email)) {
      return refuse(409, 'EMAIL_TAKEN', 'Email already registered');
    }
    const made = person(email, text(call.body.name), {
      isAdmin: call.body.isAdmin === true,
      emailVerified: false,
      hasPassword: false,
      lastLoginAt: null,
      createdAt: days(0),
    });
    people.push(made);
    return linkFor(made);
  }
  const one = people.find((other) => other.id === id);
  if (!one) return GONE;
  if (verb === 'disable') one.disabledAt = days(0);
  if (verb === 'enable') one.disabledAt = null;
  if (verb !== 'reset-password') return ok(one);
  one.hasPassword = false;
  return linkFor(one);
}

function audit(call: AccountCall, part: string): Answer {
  const list = everybody(call);
  const events = keptFor(call.email).events.map((one): ForeignEvent => {
    const actor = one.seq % 11 === 0 ? undefined : list[one.seq % list.length];
    return { ...one, actorId: actor?.id ?? null, actorEmail: actor?.email ?? null };
  });
  if (part === 'verify') {
    const hash = createHash('sha256').update(String(events.length)).digest('hex');
    return ok({
      ok: true,
      checked: events.length,
      head: { seq: events.length, hash },
      brokenAt: null,
      reason: null,
    });
  }
  if (part === 'export') return ok(events[0]);
  const [actorId, action] = [call.query.get('actorId'), call.query.get('action')];
  return ok(
    paged(
      events.filter(
        (one) =>
          (actorId === null || one.actorId === actorId) &&
          (action === null || one.action === action || one.action.startsWith(`${action}.`)),
      ),
      call.query,
    ),
  );
}

function paged<T extends AuditEvent>(events: T[], query: URLSearchParams) {
  const limit = Number(query.get('limit') ?? 50);
  const before = Number(query.get('before') ?? Infinity);
  const page = events.filter((one) => one.seq < before).slice(0, limit);
  return { events: page, nextBefore: page.length === limit ? (page.at(-1)?.seq ?? null) : null };
}

function administration(call: AccountCall): Answer {
  if (!administers(call.email)) return refuse(403, 'ADMIN_NEEDED', 'Only an administrator may do this');
  const [, second = '', third = '', fourth = ''] = call.part;
  if (second === 'users') return users(call, third, fourth);
  if (second === 'audit') return audit(call, third);
  if (second !== 'invitations') return GONE;
  if (call.method === 'DELETE') {
    invitations = invitations.filter((one) => one.id !== third);
    return ok({ success: true });
  }
  return ok({ invitations });
}

function invite(call: AccountCall): Answer {
  const email = text(call.body.email) || null;
  const made = {
    id: randomUUID(),
    email,
    createdBy: call.userId,
    createdAt: days(0),
    expiresAt: days(-7),
  };
  invitations = [made, ...invitations];
  return ok({
    success: true,
    data: { token: randomUUID().replaceAll('-', ''), email, expiresAt: made.expiresAt },
  });
}

function tokens(kept: Kept, { method, part, body }: AccountCall): Answer {
  if (method === 'GET') return ok({ success: true, data: { tokens: kept.tokens } });
  if (method === 'DELETE') {
    kept.tokens = kept.tokens.filter((one) => one.id !== part[2]);
    return done('Access token revoked');
  }
  const name = text(body.name);
  if (kept.tokens.some((one) => one.name === name)) {
    return refuse(409, 'ACCESS_TOKEN_NAME_IN_USE', 'You have an access token of this name');
  }
  const token: AccessToken = {
    id: randomUUID(),
    name,
    scope: body.scope === 'write' ? 'write' : 'read',
    createdAt: days(0),
    expiresAt: days(-Number(body.expiresInDays ?? 90)),
    lastUsedAt: null,
  };
  kept.tokens = [...kept.tokens, token];
  const secret = `craft_${randomUUID()}${randomUUID()}`.replaceAll('-', '').slice(0, 49);
  return ok({ success: true, data: { secret, token } });
}

/** Answers for who is signed in; undefined for what others know. */
export function peopleAnswer(call: AccountCall): Answer | undefined {
  const kept = keptFor(call.email);
  const [first = '', second = '', third = ''] = call.part;
  if (first === 'admin') return administration(call);
  if (first === 'audit') return ok(paged(kept.events, call.query));
  if (first !== 'auth') return undefined;
  switch (second) {
    case 'tokens':
      return tokens(kept, call);
    case 'sign-ins':
      if (call.method === 'DELETE') {
        kept.signIns = kept.signIns.filter((one) => one.id !== third);
        return done('Signed out there');
      }
      return ok({ success: true, data: { signIns: kept.signIns } });
    case 'invitations':
      return administers(call.email) ? invite(call) : refuse(403, 'ADMIN_NEEDED', 'Only an administrator');
    case 'change-password':
      return isWrong(call.body.currentPassword)
        ? refuse(400, 'WRONG_PASSWORD', 'Current password is incorrect')
        : done('Password changed successfully');
    case 'resend-verification':
      return done('Verification email sent if the address was not verified yet');
    default:
      return undefined;
  }
}

/** Answers of mailed links, which need no sign-in; a token that begins with `wrong` does not work. */
export function mailedAnswer(part: string, body: Body): Answer | undefined {
  const wrong = isWrong(body.token);
  switch (part) {
    case 'verify-email':
      return wrong
        ? refuse(400, 'INVALID_VERIFICATION_TOKEN', 'Invalid or expired verification token')
        : done('Email verified successfully');
    case 'request-password-reset':
      return done('Password reset email sent if account exists');
    case 'reset-password':
      return wrong
        ? refuse(400, 'INVALID_RESET_TOKEN', 'Invalid or expired reset token')
        : done('Password reset successfully');
    default:
      return undefined;
  }
}
