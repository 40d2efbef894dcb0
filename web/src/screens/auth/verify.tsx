import { useState, type SyntheticEvent } from 'react';
import { Link, useLocation } from 'react-router';
import { verifyEmail } from '@/api/account';
import { ApiError } from '@/api/errors';
import { useSignIn } from '@/auth/session';
import { Button } from '@/ui/button';
import { ErrorNote } from '@/ui/error-state';
import { Notice } from '@/ui/notice';
import { AuthFrame } from './frame';
import { mailedToken } from './password';

type State = 'asking' | 'confirmed' | 'spent';

const TITLES: Record<State, string> = {
  asking: 'Confirm your e-mail address',
  confirmed: 'Your address is confirmed',
  spent: 'This link does not work',
};

/**
 * Confirms an address by a mailed link. By a button and not by itself: programs that look into mail
 * open links too, and must not confirm in a person's place.
 */
export function Component() {
  // Another link in the same tab changes what is behind the # alone.
  const token = mailedToken(useLocation().hash);
  return <Verify key={token} token={token} />;
}

function Verify({ token }: { token: string }) {
  const [state, setState] = useState<State>(token === '' ? 'spent' : 'asking');
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const signIn = useSignIn();
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    verifyEmail(token)
      .then(() => setState('confirmed'))
      .catch((failure: unknown) => {
        if (failure instanceof ApiError && failure.code === 'INVALID_VERIFICATION_TOKEN') setState('spent');
        else setError(failure);
      })
      .finally(() => setBusy(false));
  };
  return (
    <AuthFrame title={TITLES[state]}>
      {state === 'asking' && (
        <form onSubmit={submit} className="flex flex-col gap-4">
          {error !== undefined && <ErrorNote error={error} />}
          <p className="text-sm text-fg-2">Do this only if you made an account here yourself.</p>
          <Button type="submit" variant="primary" size="lg" autoFocus busy={busy} className="w-full">
            It is my address
          </Button>
        </form>
      )}
      {state === 'confirmed' && (
        <div className="flex flex-col gap-4">
          <Notice kind="ok">Mail about your account comes to it.</Notice>
          <Onwards signedIn={signIn !== null} to="/" />
        </div>
      )}
      {state === 'spent' && (
        <div className="flex flex-col gap-4">
          <p role="alert" className="text-sm text-fg-2">
            {token === ''
              ? 'A part of it is missing. Open the whole link as it stands in the mail.'
              : 'It was used already, is older than a day, or a newer one was sent. Your account’s settings send another one.'}
          </p>
          <Onwards signedIn={signIn !== null} to="/settings/account" />
        </div>
      )}
    </AuthFrame>
  );
}

function Onwards({ signedIn, to }: { signedIn: boolean; to: string }) {
  return (
    <Button asChild variant="primary" size="lg" className="w-full">
      <Link to={signedIn || to !== '/' ? to : '/login'}>
        {!signedIn ? 'Sign in' : to === '/' ? 'Go home' : 'Go to your account'}
      </Link>
    </Button>
  );
}
