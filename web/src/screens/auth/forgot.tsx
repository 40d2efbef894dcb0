import { useState, type SyntheticEvent } from 'react';
import { Link, useLocation } from 'react-router';
import { requestPasswordReset } from '@/api/account';
import { Button } from '@/ui/button';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { Notice } from '@/ui/notice';
import { AuthFrame, TEXT_LINK } from './frame';

function typedBefore(state: unknown): string {
  const email = (state as { email?: unknown } | null)?.email;
  return typeof email === 'string' ? email : '';
}

/** Asks for a mail with a link that sets a new password. */
export function Component() {
  const location = useLocation();
  const [email, setEmail] = useState(() => typedBefore(location.state));
  const [problem, setProblem] = useState<string>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const [sentTo, setSentTo] = useState<string>();
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    const address = email.trim();
    setError(undefined);
    setProblem(/^\S+@\S+$/u.test(address) ? undefined : 'This is no e-mail address.');
    if (!/^\S+@\S+$/u.test(address)) return;
    setBusy(true);
    requestPasswordReset(address)
      .then(() => setSentTo(address))
      .catch(setError)
      .finally(() => setBusy(false));
  };
  return (
    <AuthFrame
      title="Forgotten password"
      lead={sentTo === undefined ? 'A link that sets a new one comes by mail.' : undefined}
      after={
        <Link to="/login" className={TEXT_LINK}>
          Back to the sign-in
        </Link>
      }
    >
      {sentTo === undefined ? (
        <form onSubmit={submit} noValidate className="flex flex-col gap-4">
          {error !== undefined && <ErrorNote error={error} />}
          <Field label="E-mail address" error={problem}>
            {(control) => (
              <Input
                {...control}
                autoFocus
                type="email"
                autoComplete="username"
                value={email}
                onChange={(event) => setEmail(event.target.value)}
              />
            )}
          </Field>
          <Button type="submit" variant="primary" size="lg" busy={busy} className="mt-1 w-full">
            Send me a link
          </Button>
        </form>
      ) : (
        <div className="flex flex-col gap-4">
          <Notice kind="ok">
            If <strong className="font-medium">{sentTo}</strong> has an account here, a mail is on its way.
            Its link works once, for 30 minutes.
          </Notice>
          <p className="text-sm text-fg-2">
            Nothing came? Look among the unwanted mail, or ask an administrator of this server for a link.
          </p>
          <Button className="w-full" onClick={() => setSentTo(undefined)}>
            Another address
          </Button>
        </div>
      )}
    </AuthFrame>
  );
}
