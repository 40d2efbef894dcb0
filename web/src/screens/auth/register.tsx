import { useState, type SyntheticEvent } from 'react';
import { Link, useLocation, useSearchParams } from 'react-router';
import { ApiError, sentence } from '@/api/errors';
import type { Registration } from '@/api/types';
import { register } from '@/auth/session';
import { Button } from '@/ui/button';
import { Collapsible } from '@/ui/collapsible';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input, PasswordInput } from '@/ui/input';
import { Notice } from '@/ui/notice';
import { AuthFrame, TEXT_LINK } from './frame';
import { PASSWORD_HINT, passwordProblem } from './password';

type TokenKind = 'setupToken' | 'invitation';
type Fields = { name: string; email: string; password: string; setupToken: string; invitation: string };
type Problems = Partial<Record<keyof Fields, string>>;

/** Which field a refusal is about; what is about none is said above the form. Pure. */
export function problemsFrom(error: unknown): Problems {
  if (!(error instanceof ApiError)) return {};
  const field = (
    {
      SETUP_TOKEN_NEEDED: 'setupToken',
      INVITATION_NEEDED: 'invitation',
      BAD_EMAIL: 'email',
      EMAIL_TAKEN: 'email',
      BAD_NAME: 'name',
      BAD_PASSWORD: 'password',
    } as const
  )[error.code];
  return field === undefined ? {} : { [field]: sentence(error.message) };
}

function problemsOf({ name, email, password }: Fields): Problems {
  const wrong = passwordProblem(password);
  return {
    ...(name.trim() === '' ? { name: 'Say how you are called.' } : {}),
    ...(/^\S+@\S+$/u.test(email.trim()) ? {} : { email: 'This is no e-mail address.' }),
    ...(wrong === undefined ? {} : { password: wrong }),
  };
}

function bodyOf({ name, email, password, setupToken, invitation }: Fields): Registration {
  return {
    name: name.trim(),
    email: email.trim(),
    password,
    ...(setupToken.trim() === '' ? {} : { setupToken: setupToken.trim() }),
    ...(invitation.trim() === '' ? {} : { invitation: invitation.trim() }),
  };
}

/** Out of the address: tokens are kept from the server's logs and other sites by being behind `#`. */
function fromAddress(kind: TokenKind | 'email', params: URLSearchParams): string {
  const behind = new URLSearchParams(window.location.hash.slice(1));
  return behind.get(kind) ?? params.get(kind) ?? '';
}

export function Component() {
  // Another link in the same tab changes what is behind the # alone. It goes when the form is sent.
  const { hash } = useLocation();
  const [link, setLink] = useState(hash);
  if (hash !== '' && hash !== link) setLink(hash);
  return <Register key={link} />;
}

function Register() {
  const [params, setParams] = useSearchParams();
  const [fields, setFields] = useState<Fields>(() => ({
    name: '',
    email: fromAddress('email', params),
    password: '',
    setupToken: fromAddress('setupToken', params),
    invitation: fromAddress('invitation', params),
  }));
  const [problems, setProblems] = useState<Problems>({});
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const [posted, setPosted] = useState(false);
  // Asked for once it is known to be needed: by the address, or by the server's refusal.
  const [asked, setAsked] = useState<ReadonlySet<TokenKind>>(
    () => new Set((['setupToken', 'invitation'] as const).filter((kind) => fields[kind] !== '')),
  );

  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    const own = problemsOf(fields);
    setProblems(own);
    setError(undefined);
    if (Object.keys(own).length > 0) return;
    setBusy(true);
    // The guard goes on from here once the tokens are there: who is new is shown how to begin.
    if (!params.has('return')) setParams({ return: '/welcome' }, { replace: true });
    register(bodyOf(fields))
      .then((signedIn) => setPosted(!signedIn))
      .catch((failure: unknown) => {
        setBusy(false);
        const found = problemsFrom(failure);
        setProblems(found);
        if (Object.keys(found).length === 0) setError(failure);
        if (found.setupToken !== undefined) setAsked(new Set([...asked, 'setupToken']));
        if (found.invitation !== undefined) setAsked(new Set([...asked, 'invitation']));
      });
  };
  const set = (field: keyof Fields) => (value: string) => {
    setFields({ ...fields, [field]: value });
    setProblems(Object.fromEntries(Object.entries(problems).filter(([key]) => key !== field)));
  };
  if (posted) return <LookIntoMail email={fields.email.trim()} />;
  return (
    <AuthFrame
      title={asked.has('setupToken') ? 'Create the first account' : 'Create your account'}
      lead={
        asked.has('setupToken')
          ? 'It administers this server.'
          : asked.has('invitation')
            ? 'You were invited to this server.'
            : undefined
      }
      after={
        <>
          Have an account?{' '}
          <Link to="/login" className={TEXT_LINK}>
            Sign in
          </Link>
        </>
      }
    >
      <form onSubmit={submit} noValidate className="flex flex-col gap-4">
        {error !== undefined && <ErrorNote error={error} />}
        {asked.has('setupToken') && (
          <TokenField
            kind="setupToken"
            value={fields.setupToken}
            onChange={set('setupToken')}
            error={problems.setupToken}
          />
        )}
        {asked.has('invitation') && (
          <TokenField
            kind="invitation"
            value={fields.invitation}
            onChange={set('invitation')}
            error={problems.invitation}
          />
        )}
        <Field label="Name" error={problems.name}>
          {(control) => (
            <Input
              {...control}
              autoFocus
              autoComplete="name"
              value={fields.name}
              onChange={(event) => set('name')(event.target.value)}
            />
          )}
        </Field>
        <Field label="E-mail address" error={problems.email}>
          {(control) => (
            <Input
              {...control}
              type="email"
              autoComplete="username"
              value={fields.email}
              onChange={(event) => set('email')(event.target.value)}
            />
          )}
        </Field>
        <Field label="Password" hint={PASSWORD_HINT} error={problems.password}>
          {(control) => (
            <PasswordInput
              {...control}
              autoComplete="new-password"
              value={fields.password}
              onChange={(event) => set('password')(event.target.value)}
            />
          )}
        </Field>
        <Button type="submit" variant="primary" size="lg" busy={busy} className="mt-1 w-full">
          Create account
        </Button>
        {asked.size === 0 && (
          <Collapsible title="I have a token">
            <div className="flex flex-col items-start gap-1 text-sm">
              <button type="button" className={TEXT_LINK} onClick={() => setAsked(new Set(['invitation']))}>
                An invitation from an administrator
              </button>
              <button type="button" className={TEXT_LINK} onClick={() => setAsked(new Set(['setupToken']))}>
                The one-time token of a new server
              </button>
            </div>
          </Collapsible>
        )}
      </form>
    </AuthFrame>
  );
}

function LookIntoMail({ email }: { email: string }) {
  return (
    <AuthFrame title="Look into your mail">
      <div className="flex flex-col gap-4">
        <Notice kind="ok">
          A mail is on its way to <strong className="font-medium">{email}</strong>. Confirm the address by its
          link, then sign in.
        </Notice>
        <Button asChild variant="primary" size="lg" className="w-full">
          <Link to="/login">Go to the sign-in</Link>
        </Button>
      </div>
    </AuthFrame>
  );
}

function TokenField({
  kind,
  value,
  onChange,
  error,
}: {
  kind: TokenKind;
  value: string;
  onChange: (value: string) => void;
  error: string | undefined;
}) {
  const [label, hint] =
    kind === 'setupToken'
      ? ['One-time token', 'The server printed it at its first start.']
      : ['Invitation', 'An administrator of this server gives you one.'];
  return (
    <Field label={label} hint={hint} error={error}>
      {(control) => (
        <Input
          {...control}
          autoComplete="off"
          spellCheck={false}
          className="font-mono"
          value={value}
          onChange={(event) => onChange(event.target.value)}
        />
      )}
    </Field>
  );
}
