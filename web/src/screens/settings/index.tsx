import { Navigate, useParams } from 'react-router';
import { NotFound } from '@/app/errors';
import { ActivitySettings } from '../account/activity';
import { PasswordSettings } from '../account/password';
import { SignInSettings } from '../account/sign-ins';
import { TokenSettings } from '../account/tokens';
import { CoolifySettings } from '../deployments/settings';
import { AccountSettings } from './account';
import { AppearanceSettings } from './appearance';
import { GitHostSettings } from './hosts';
import { KeySettings } from './keys';
import { NotificationSettings } from './notifications';
import { VariableSettings } from './variables';

/** The settings, all but GitHub's and the administration's, which are screens of their own. */
export function Component() {
  const { '*': path = '' } = useParams();
  if (path === '') return <Navigate to="/settings/account" replace />;
  switch (path.replace(/\/$/u, '')) {
    case 'account':
      return <AccountSettings />;
    case 'password':
      return <PasswordSettings />;
    case 'sign-ins':
      return <SignInSettings />;
    case 'tokens':
      return <TokenSettings />;
    case 'activity':
      return <ActivitySettings />;
    case 'appearance':
      return <AppearanceSettings />;
    case 'notifications':
      return <NotificationSettings />;
    case 'keys':
      return <KeySettings />;
    case 'hosts':
      return <GitHostSettings />;
    case 'coolify':
      return <CoolifySettings />;
    case 'variables':
      return <VariableSettings />;
    default:
      return <NotFound />;
  }
}
