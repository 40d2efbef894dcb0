import { useState, type SyntheticEvent } from 'react';
import { Link } from 'react-router';
import { useChangePassword } from '@/api/account';
import { ApiError, sentence } from '@/api/errors';
import { signedOutBecause, useUser } from '@/auth/session';
import { Button } from '@/ui/button';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { PasswordInput } from '@/ui/input';
import { Card } from '@/ui/list';
import { Notice } from '@/ui/notice';
import { Checkbox } from '@/ui/toggles';
import { TEXT_LINK } from '../auth/frame';
import { PASSWORD_HINT, passwordProblem } from '../auth/password';
import { SettingsPage } from '../settings/frame';

type Problems = { current?: string | undefined; fresh?: string | undefined };

/** Which field a refusal is about; nothing where it is about none. Pure. */
export function passwordRefusal(error: unknown): Problems {
  if (!(error instanceof ApiError)) return {};
  if (error.code === 'WRONG_PASSWORD') return { current: 'This is not your present password.' };
  return error.code === 'BAD_PASSWORD' ? { fresh: sentence(error.message) } : {};
}

export function PasswordSettings() {
  return (
    <SettingsPage title="Password" lead="What you sign in with.">
      <Card className="p-4 sm:p-5">
        <ChangeForm />
      </Card>
    </SettingsPage>
  );
}

function ChangeForm() {
  const { email } = useUser();
  const [current, setCurrent] = useState('');
  const [fresh, setFresh] = useState('');
  const [revokeTokens, setRevokeTokens] = useState(false);
  const [own, setOwn] = useState<Problems>({});
  const change = useChangePassword();
  const refused = passwordRefusal(change.error);
  const elsewhere = change.isError && refused.current === undefined && refused.fresh === undefined;
  const typed = () => {
    setOwn({});
    change.reset();
  };
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    const problems: Problems = {
      current: current === '' ? 'Type the one that you have now.' : undefined,
      fresh: passwordProblem(fresh) ?? (fresh === current ? 'This is the one that you have.' : undefined),
    };
    setOwn(problems);
    if (problems.current !== undefined || problems.fresh !== undefined) return;
    change.mutate(
      { currentPassword: current, newPassword: fresh, revokeTokens },
      { onSuccess: () => signedOutBecause('Your password is changed. Sign in with the new one.') },
    );
  };
  return (
    <form onSubmit={submit} noValidate className="flex max-w-md flex-col gap-4">
      <Notice>
        Changing it ends all your sign-ins, this one too: you will sign in again with the new one. What runs
        in your environments goes on.
      </Notice>
      {elsewhere && <ErrorNote error={change.error} />}
      {/* For programs that keep passwords: whose it is. */}
      <input type="text" autoComplete="username" value={email} readOnly hidden />
      <Field label="Present password" error={own.current ?? refused.current}>
        {(control) => (
          <PasswordInput
            {...control}
            autoComplete="current-password"
            value={current}
            onChange={(event) => {
              setCurrent(event.target.value);
              typed();
            }}
          />
        )}
      </Field>
      <Field label="New password" hint={PASSWORD_HINT} error={own.fresh ?? refused.fresh}>
        {(control) => (
          <PasswordInput
            {...control}
            autoComplete="new-password"
            value={fresh}
            onChange={(event) => {
              setFresh(event.target.value);
              typed();
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
      <div className="flex flex-wrap items-center gap-x-4 gap-y-2">
        <Button type="submit" variant="primary" busy={change.isPending}>
          Change the password
        </Button>
        <Link to="/forgot-password" state={{ email }} className={`${TEXT_LINK} text-sm`}>
          Forgotten the present one?
        </Link>
      </div>
    </form>
  );
}
