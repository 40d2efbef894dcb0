import { useState, type SyntheticEvent } from 'react';
import { Link, useSearchParams } from 'react-router';
import { saidAtSignIn } from '@/auth/farewell';
import { login } from '@/auth/session';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input, PasswordInput } from '@/ui/input';
import { Notice } from '@/ui/notice';
import { AuthFrame, TEXT_LINK } from './frame';

export function Component() {
  const [params] = useSearchParams();
  const [email, setEmail] = useState('');
  const [password, setPassword] = useState('');
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const [said] = useState(saidAtSignIn);
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    // The guard goes on from here once the tokens are there.
    login({ email: email.trim(), password }).catch((failure: unknown) => {
      setBusy(false);
      setError(failure);
    });
  };
  const search = params.size > 0 ? `?${params.toString()}` : '';
  return (
    <AuthFrame
      title="Sign in"
      lead="Your environments are where you left them."
      after={
        <>
          No account yet?{' '}
          <Link to={`/register${search}`} className={TEXT_LINK}>
            Create one
          </Link>
        </>
      }
    >
      <form onSubmit={submit} className="flex flex-col gap-4">
        {error === undefined && said !== undefined && <Notice kind="ok">{said}</Notice>}
        {error !== undefined && <ErrorNote error={error} />}
        <Field label="E-mail address">
          {(control) => (
            <Input
              {...control}
              autoFocus
              required
              type="email"
              autoComplete="username"
              value={email}
              onChange={(event) => setEmail(event.target.value)}
            />
          )}
        </Field>
        <Field label="Password">
          {(control) => (
            <PasswordInput
              {...control}
              required
              autoComplete="current-password"
              value={password}
              onChange={(event) => setPassword(event.target.value)}
            />
          )}
        </Field>
        <Button type="submit" variant="primary" size="lg" busy={busy} className="mt-1 w-full">
          Sign in
        </Button>
        <Link
          to="/forgot-password"
          state={{ email: email.trim() }}
          className={cn(TEXT_LINK, 'self-center text-sm')}
        >
          Forgotten your password?
        </Link>
      </form>
    </AuthFrame>
  );
}
