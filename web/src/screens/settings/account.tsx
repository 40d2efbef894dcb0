import type { ReactNode } from 'react';
import { useResendVerification } from '@/api/account';
import { useMe } from '@/api/queries';
import { Section } from '@/app/page';
import { useUser } from '@/auth/session';
import { Avatar } from '@/ui/avatar';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { CopyButton } from '@/ui/code';
import { ErrorNote } from '@/ui/error-state';
import { Card } from '@/ui/list';
import { toast } from '@/ui/toast';
import { SettingsPage } from './frame';

export function AccountSettings() {
  const me = useMe();
  const kept = useUser();
  const user = me.data ?? kept;
  return (
    <SettingsPage title="Account" lead="Who you are here, and whom your commits are by.">
      {me.isError && <ErrorNote error={me.error} className="mb-4" />}
      <Section title="You">
        <Card className="divide-y divide-line">
          <div className="flex items-center gap-4 p-4">
            <Avatar name={user.name} className="size-12 text-base" />
            <div className="min-w-0">
              <p className="truncate text-lg font-semibold">{user.name}</p>
              <p className="truncate text-sm text-fg-2">{user.email}</p>
            </div>
          </div>
          <Row label="Name">{user.name}</Row>
          <Row label="E-mail address">
            <span className="truncate">{user.email}</span>
            <Badge tone={user.emailVerified ? 'ok' : 'neutral'}>
              {user.emailVerified ? 'verified' : 'not verified'}
            </Badge>
            {!user.emailVerified && me.isSuccess && <SendLink email={user.email} />}
          </Row>
          <Row label="Account id">
            <code className="truncate font-mono text-xs text-fg-2">{user.id}</code>
            <CopyButton text={user.id} label="Copy the account id" className="-my-1" />
          </Row>
        </Card>
      </Section>
    </SettingsPage>
  );
}

/** Sends the link that confirms the address once more. */
function SendLink({ email }: { email: string }) {
  const resend = useResendVerification();
  return (
    <Button
      size="sm"
      busy={resend.isPending}
      disabled={resend.isSuccess}
      onClick={() =>
        resend.mutate(undefined, {
          onSuccess: () =>
            toast.ok(`A mail is on its way to ${email}`, { description: 'Its link confirms the address.' }),
          onError: (error) => toast.failed('No mail was sent', error),
        })
      }
    >
      {resend.isSuccess ? 'Sent' : 'Send the link again'}
    </Button>
  );
}

function Row({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div className="flex min-h-11 flex-col gap-0.5 px-4 py-2.5 text-sm sm:flex-row sm:items-center sm:gap-4">
      <span className="w-36 shrink-0 text-fg-3">{label}</span>
      <span className="flex min-w-0 flex-wrap items-center gap-2">{children}</span>
    </div>
  );
}
