import { Navigate, useParams } from 'react-router';
import { NotFound } from '@/app/errors';
import { AccountSettings } from './account';
import { AppearanceSettings } from './appearance';
import { GitHostSettings } from './hosts';
import { KeySettings } from './keys';
import { SignInSettings } from './sign-ins';
import { VariableSettings } from './variables';

/** The settings, all but GitHub's, which is a screen of its own. */
export function Component() {
  const { '*': path = '' } = useParams();
  if (path === '') return <Navigate to="/settings/account" replace />;
  switch (path.replace(/\/$/u, '')) {
    case 'account':
      return <AccountSettings />;
    case 'sign-ins':
      return <SignInSettings />;
    case 'appearance':
      return <AppearanceSettings />;
    case 'keys':
      return <KeySettings />;
    case 'hosts':
      return <GitHostSettings />;
    case 'variables':
      return <VariableSettings />;
    default:
      return <NotFound />;
  }
}
