import { useState, type SyntheticEvent } from 'react';
import { Link, useLocation, useNavigate } from 'react-router';
import { resetPassword } from '@/api/account';
import { ApiError, sentence } from '@/api/errors';
import { signedOutBecause } from '@/auth/session';
import { Button } from '@/ui/button';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { PasswordInput } from '@/ui/input';
import { Notice } from '@/ui/notice';
import { Checkbox } from '@/ui/toggles';
import { AuthFrame, TEXT_LINK } from './frame';
import { mailedToken, PASSWORD_HINT, passwordProblem } from './password';

/** Sets a new password by a mailed link. */
export function Component() {
  // Another link in the same tab changes what is behind the # alone.
  const token = mailedToken(useLocation().hash);
  return <Reset key={token} token={token} />;
}

function Reset({ token }: { token: string }) {
  const [spent, setSpent] = useState(token === '');
  return (
    <AuthFrame
      title={spent ? 'This link does not work' : 'Set a new password'}
      after={
        <Link to="/login" className={TEXT_LINK}>
          Back to the sign-in
        </Link>
      }
    >
      {spent ? <Spent whole={token !== ''} /> : <Form token={token} onSpent={() => setSpent(true)} />}
    </AuthFrame>
  );
}

function Spent({ whole }: { whole: boolean }) {
  return (
    <div className="flex flex-col gap-4">
      <p role="alert" className="text-sm text-fg-2">
        {whole
          ? 'It was used already, is too old, or a newer one was sent. A link works once, for 30 minutes.'
          : 'A part of it is missing. Open the whole link as it stands in the mail.'}
      </p>
      <Button asChild variant="primary" size="lg" className="w-full">
        <Link to="/forgot-password">Send me another link</Link>
      </Button>
    </div>
  );
}

function Form({ token, onSpent }: { token: string; onSpent: () => void }) {
  const [password, setPassword] = useState('');
  const [revokeTokens, setRevokeTokens] = useState(false);
  const [problem, setProblem] = useState<string>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const navigate = useNavigate();
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    const own = passwordProblem(password);
    setProblem(own);
    setError(undefined);
    if (own !== undefined) return;
    setBusy(true);
    resetPassword({ token, password, revokeTokens })
      .then(() => {
        // Who is signed in here most likely is who this was for: that sign-in is over.
        signedOutBecause('Your password is changed. Sign in with the new one.');
        void navigate('/login', { replace: true });
      })
      .catch((failure: unknown) => {
        setBusy(false);
        const code = failure instanceof ApiError ? failure.code : '';
        if (code === 'INVALID_RESET_TOKEN') onSpent();
        else if (failure instanceof ApiError && code === 'BAD_PASSWORD') {
          setProblem(sentence(failure.message));
        } else setError(failure);
      });
  };
  return (
    <form onSubmit={submit} noValidate className="flex flex-col gap-4">
      {error !== undefined && <ErrorNote error={error} />}
      <Notice>It ends all your sign-ins, on every device. What runs in your environments goes on.</Notice>
      <Field label="New password" hint={PASSWORD_HINT} error={problem}>
        {(control) => (
          <PasswordInput
            {...control}
            autoFocus
            autoComplete="new-password"
            value={password}
            onChange={(event) => {
              setPassword(event.target.value);
              setProblem(undefined);
            }}
          />
        )}
      </Field>
      <Checkbox
        label="End my access tokens too"
        hint="Scripts that use them stop working. Do this when somebody else was in your account."
        checked={revokeTokens}
        onCheckedChange={(on) => setRevokeTokens(on === true)}
      />
      <Button type="submit" variant="primary" size="lg" busy={busy} className="mt-1 w-full">
        Set the password
      </Button>
    </form>
  );
}
