import type { ReactNode } from 'react';
import { useAdministration } from '@/api/queries';
import { NotFound } from '@/app/errors';
import { ErrorState } from '@/ui/error-state';
import { SkeletonRows } from '@/ui/skeleton';
import { SettingsPage } from '../settings/frame';

/** One part of the administration; for who is no administrator there is nothing at its address. */
export function AdminPage({ title, lead, children }: { title: string; lead: string; children: ReactNode }) {
  const administration = useAdministration();
  if (administration.data === false) return <NotFound />;
  return (
    <SettingsPage title={title} lead={administration.data === true ? lead : undefined}>
      {administration.isPending && <SkeletonRows label="Loading" />}
      {administration.isError && administration.data === undefined && (
        <ErrorState
          title="The server could not tell what you may do"
          error={administration.error}
          busy={administration.isFetching}
          onRetry={() => void administration.refetch()}
        />
      )}
      {administration.data === true && children}
    </SettingsPage>
  );
}
